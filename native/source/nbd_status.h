// Asks an export what it holds, and discards of it: the connection of the planning side.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "source/nbd_connection.h"
#include "source/nbd_export.h"

namespace qb {

// A run of bytes with equal flags of one context.
struct StatusRun {
  uint64_t length;
  uint32_t flags;
};

// Not thread-safe.
class NbdStatus {
 public:
  // Connects. `cancel` ends this and every call with Error(ECANCELED). Throws Error(ELIBACC)
  // without libnbd, NbdError, Error(ETIMEDOUT).
  NbdStatus(const NbdAddress& address, const std::vector<std::string>& contexts,
            const std::shared_ptr<NbdCancel>& cancel);

  const NbdExport& info() const { return info_; }
  // One reply for a range: for each context its runs from `start` on. They may end before or behind
  // the range, each context elsewhere (NBD protocol, NBD_CMD_BLOCK_STATUS). Empty for a context
  // that the server left out. Throws NbdError (EPROTO: the answer breaks the protocol),
  // Error(ETIMEDOUT). After an EPROTO the connection is of no use.
  std::vector<std::vector<StatusRun>> status(uint64_t start, uint64_t length);
  // Discards a range: the server may forget what it holds. Throws NbdError (EPERM: read-only,
  // EINVAL: it can't), Error(ETIMEDOUT).
  void trim(uint64_t start, uint64_t length);
  // The connection, for another use; only info() may be called from then on.
  std::unique_ptr<NbdConnection> release_connection() { return std::move(connection_); }

 private:
  std::unique_ptr<NbdConnection> connection_;
  std::vector<std::string> contexts_;
  NbdExport info_;
};

}  // namespace qb
