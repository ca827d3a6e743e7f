// A server's description of an export.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "source/nbd_connection.h"

namespace qb {

// Sizes in bytes.
struct NbdExport {
  uint64_t size = 0;
  bool multi_conn = false;
  bool read_only = false;
  bool can_trim = false;
  bool can_zero = false;
  bool can_flush = false;
  uint64_t block_min = 1;         // of offsets and lengths, a power of two
  uint64_t block_max = 32 << 20;  // of one request's payload, a multiple of block_min
  std::vector<bool> contexts;     // which of those asked for it has
  // Everything in the protocol that identifies the export, a line `key value` for each: with
  // another one it is another disk, or another server.
  std::string fingerprint;
};

// REQUIRES: the connection is ready. Throws NbdError(EPROTO) for block sizes that the protocol does
// not allow.
NbdExport describe_export(const NbdConnection& connection,
                          const std::vector<std::string>& contexts);

// The first difference between two fingerprints: "size"; empty if equal.
std::string difference(const std::string& fingerprint, const std::string& other);

}  // namespace qb
