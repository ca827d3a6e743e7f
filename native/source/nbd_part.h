// The part of a transfer in one request: no more than the server takes at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>

#include "io/queue.h"
#include "source/nbd_coverage.h"
#include "source/nbd_library.h"

namespace qb {

// A transfer that is carried out in parts.
struct NbdTask {
  Transfer* transfer;
  size_t parts_left;
};

struct NbdPart {
  std::shared_ptr<NbdTask> task;
  uint8_t* memory;  // destination or data; null for other requests
  uint64_t offset;  // in the export, bytes
  uint64_t length;
  bool completed = false;  // these two are set when libnbd has the answer
  int error = 0;
  // The answer breaks the protocol: nothing that comes over this connection can be trusted.
  bool broken = false;
  NbdCoverage coverage = {};  // of a read

  Op op() const { return task->transfer->op; }
  // Sends the request; `this` must stay where it is until it is completed or the connection closed.
  // `no_hole`: zeroes are to take up room. False, with libnbd's error, when it can't be sent.
  bool send(nbd_handle* handle, bool no_hole);
};

// Maximum payload of one request where the server takes `block_max`: small enough that a slow
// line completes one now and then.
uint64_t part_limit(uint64_t block_max);

// Appends a transfer's parts. `block_max`: of a payload, bytes.
void split(Transfer* transfer, uint64_t block_max, std::deque<std::unique_ptr<NbdPart>>& parts);

}  // namespace qb
