// Parameters of an NBD client: the export and the connections to it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "source/nbd_connection.h"

namespace qb {

struct NbdClientSpec {
  NbdAddress address;
  // Both of the export when it was opened (nbd_export.h): with others it is another disk. Size in
  // bytes; an empty fingerprint is that of any.
  uint64_t size = 0;
  std::string fingerprint = "";
  unsigned connections = 1;       // at most: as many as the server takes
  unsigned requests = 16;         // in flight on each connection
  unsigned block_min = 1;         // of offsets and lengths, bytes
  uint64_t block_max = 32 << 20;  // of one request's payload, bytes
  // Times in a row that a connection which is lost, or cannot be made, is made again. 0 if writes
  // must not continue on another server than the one that took them: unflushed data may be gone.
  // Then the first connection that is lost is the end.
  unsigned retries = 6;
  // Whether zeroes are to take up space in the export (NBD_CMD_FLAG_NO_HOLE).
  bool no_hole = false;
  // Becomes the first connection, if it is still there, before any is made: a server may serve a
  // single client, and end with it. Ready, idle, and moved from.
  std::shared_ptr<std::unique_ptr<NbdConnection>> adopted = nullptr;
};

}  // namespace qb
