// Asks an export what it holds, reads small parts and discards of it: the connection of the
// planning side.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "source/nbd_connection.h"

namespace qb {

// What a server says of an export. Sizes in bytes.
struct NbdExport {
  uint64_t size = 0;
  bool multi_conn = false;
  bool read_only = false;
  bool can_trim = false;
  bool can_zero = false;
  bool can_flush = false;
  uint64_t block_min = 1;         // of offsets and lengths
  uint64_t block_max = 32 << 20;  // of one request's payload
  std::vector<bool> contexts;     // which of those asked for it has
};

// A run of bytes with equal flags of one context.
struct StatusRun {
  uint64_t length;
  uint32_t flags;
};

// Not thread-safe.
class NbdStatus {
 public:
  // Throws as NbdConnection.
  NbdStatus(const NbdAddress& address, const std::vector<std::string>& contexts);

  const NbdExport& info() const { return info_; }
  // One reply for a range: for each context its runs from `start` on. They may end before or behind
  // the range, each context elsewhere (NBD protocol, NBD_CMD_BLOCK_STATUS). Empty for a context
  // that the server left out. Throws NbdError, Error(ETIMEDOUT).
  std::vector<std::vector<StatusRun>> status(uint64_t start, uint64_t length);
  // Reads a range, in as many requests as the server's limit makes it. Throws NbdError,
  // Error(ETIMEDOUT).
  std::shared_ptr<std::vector<uint8_t>> read(uint64_t start, uint64_t length);
  // Discards a range: the server may forget what it holds. Throws NbdError (EPERM: read-only,
  // EINVAL: it can't), Error(ETIMEDOUT).
  void trim(uint64_t start, uint64_t length);
  // The connection, for another use; only info() may be called from then on.
  std::shared_ptr<NbdConnection> release_connection();

 private:
  NbdConnection connection_;
  std::vector<std::string> contexts_;
  NbdExport info_;
};

}  // namespace qb
