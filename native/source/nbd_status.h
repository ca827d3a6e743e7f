// Reads block status from an export, and discards, reads and writes ranges, at the caller's pace:
// the connection of the planning side, and of servers.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "source/nbd_connection.h"
#include "source/nbd_export.h"
#include "source/nbd_part.h"

namespace qb {

// A run of bytes with equal flags of one context.
struct StatusRun {
  uint64_t length;
  uint32_t flags;
};

// Bytes of the export.
struct ByteRange {
  uint64_t start;
  uint64_t length;
};

// Not thread-safe.
class NbdStatus {
 public:
  // Connects. `cancel` ends this and every call with Error(ECANCELED). Throws Error(ELIBACC)
  // without libnbd, NbdError, Error(ETIMEDOUT).
  NbdStatus(const NbdAddress& address, const std::vector<std::string>& contexts,
            const std::shared_ptr<NbdCancel>& cancel);

  const NbdExport& info() const { return info_; }
  // For each context its runs from `start` on, one reply or several: as many as are complete, have
  // few runs, and come soon. They may end before or after the range, each context elsewhere (NBD
  // protocol, NBD_CMD_BLOCK_STATUS). Empty for a context that the server left out. Throws NbdError
  // (EPROTO: the answer breaks the protocol), Error(ETIMEDOUT). After an EPROTO the connection is
  // of no use.
  std::vector<std::vector<StatusRun>> status(uint64_t start, uint64_t length);
  // Discards ranges: the server may drop their content. Several requests are under way at once.
  // After a failure others may have been done or not. Throws NbdError (EPERM: read-only, EINVAL: it
  // can't), Error(ETIMEDOUT).
  void trim(const std::vector<ByteRange>& ranges);
  // Carries out a read, write, zeroing or sync, in as many requests as it takes, several at once.
  // `memory`: of a read or write, as many bytes as `length`; kept until nothing uses it any more.
  // `no_hole`: zeroes are to take up room. Throws NbdError for the first one that the server
  // refused, when all were answered; EPROTO, Error(ETIMEDOUT) as status().
  void transfer(Op op, uint64_t start, uint64_t length,
                std::shared_ptr<std::vector<uint8_t>> memory, bool no_hole = false);
  // The connection, for another use; only info() may be called from then on.
  std::unique_ptr<NbdConnection> release_connection() { return std::move(connection_); }

  using Runs = std::vector<std::vector<StatusRun>>;

  // The result of one reply, filled by libnbd's callbacks. Shared with these: a reply may come, or
  // be thrown away with the connection, after nobody waits for it any more.
  struct Reply {
    std::vector<std::string> contexts;
    uint64_t start = 0;
    uint64_t length = 0;
    Runs runs;
    bool broken = false;  // the answer breaks the protocol
    bool completed = false;
    int error = 0;
  };

 private:
  std::shared_ptr<Reply> ask(uint64_t start, uint64_t length);
  std::shared_ptr<Reply> send_trim(const ByteRange& range);
  bool is_complete(const Runs& runs, uint64_t length) const;

  // A transfer's requests, and what they use.
  struct Sent {
    Transfer transfer;
    std::shared_ptr<std::vector<uint8_t>> memory;
    std::deque<std::unique_ptr<NbdPart>> parts;
  };
  // Those that may still be answered though nobody waits: the connection must end before them.
  std::vector<std::unique_ptr<Sent>> abandoned_;
  std::unique_ptr<NbdConnection> connection_;
  std::vector<std::string> contexts_;
  NbdExport info_;
  // Asked for ahead, and not taken yet.
  std::shared_ptr<Reply> pending_;
};

}  // namespace qb
