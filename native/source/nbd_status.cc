#include "source/nbd_status.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "source/nbd_connecting.h"

namespace qb {

namespace {

// A request's length has 32 bits; the limit keeps it a multiple of every block size.
constexpr uint64_t kMostAsked = 2ull << 30;
constexpr uint64_t kMostTrimmed = 1ull << 30;

// Of one context in one reply: as many as nbdkit sends, and eight times what QEMU does.
constexpr size_t kMostRuns = 1 << 20;
// What a slow line has time for: as much as QEMU sends.
constexpr uint64_t kMostStatusBytes = 1 << 20;

// What one reply fills in, by libnbd's callbacks. Shared with these: a reply may come, or be thrown
// away with the connection, after nobody waits for it any more.
struct Reply {
  std::vector<std::string> contexts;
  uint64_t start = 0;
  std::vector<std::vector<StatusRun>> runs;
  bool broken = false;  // the answer breaks the protocol
  bool completed = false;
  int error = 0;
};
using ReplyRef = std::shared_ptr<Reply>;

int on_extents(void* data, const char* context, uint64_t offset, uint32_t* entries, size_t count,
               int* error) noexcept {
  Reply& reply = **static_cast<ReplyRef*>(data);
  for (size_t i = 0; i < reply.contexts.size(); i++) {
    if (reply.contexts[i] != context) continue;
    // Each context is answered once, about what was asked.
    if (offset != reply.start || !reply.runs[i].empty() || count / 2 > kMostRuns) break;
    reply.runs[i].reserve(count / 2);
    for (size_t k = 0; k + 1 < count; k += 2) reply.runs[i].push_back({entries[k], entries[k + 1]});
    return 0;
  }
  reply.broken = true;
  *error = EPROTO;
  return -1;
}

int on_completion(void* data, int* error) noexcept {
  Reply& reply = **static_cast<ReplyRef*>(data);
  reply.completed = true;
  reply.error = *error;
  return 1;
}

void release_reply(void* data) noexcept {
  delete static_cast<ReplyRef*>(data);
}

// libnbd calls `free` in any case, also when the request could not be made.
template <typename Callback, typename Function>
Callback callback(Function function, const ReplyRef& reply) {
  return {function, std::make_unique<ReplyRef>(reply).release(), release_reply};
}

void wait(NbdConnection& connection, const ReplyRef& reply, int64_t cookie, uint64_t most,
          const char* what) {
  if (cookie < 0) throw nbd_error();
  connection.wait_until([&] { return reply->completed || reply->broken; }, most);
  if (reply->broken) throw NbdError(EPROTO, "the server's answer is malformed");
  if (reply->error != 0) throw NbdError(reply->error, what);
}

}  // namespace

NbdStatus::NbdStatus(const NbdAddress& address, const std::vector<std::string>& contexts,
                     const std::shared_ptr<NbdCancel>& cancel)
    : connection_(connect_nbd(address, contexts, cancel)),
      contexts_(contexts),
      info_(describe_export(*connection_, contexts)) {}

std::vector<std::vector<StatusRun>> NbdStatus::status(uint64_t start, uint64_t length) {
  auto reply = std::make_shared<Reply>(Reply{contexts_, start, {}});
  reply->runs.resize(contexts_.size());
  // NOLINTNEXTLINE(clang-analyzer-cplusplus.NewDeleteLeaks): it does not see that libnbd frees
  wait(*connection_, reply,
       nbd_library().aio_block_status(connection_->handle(), std::min(length, kMostAsked), start,
                                      callback<nbd_extent_callback>(on_extents, reply),
                                      callback<nbd_completion_callback>(on_completion, reply), 0),
       kMostStatusBytes, "block status");
  return std::move(reply->runs);
}

// Cut at multiples, so that what a server discards in large units it finds whole.
void NbdStatus::trim(uint64_t start, uint64_t length) {
  // libnbd would only say that the server can't.
  if (info_.read_only) throw NbdError(EPERM, "trim");
  for (uint64_t end = start + length; start < end;) {
    uint64_t part = std::min(end - start, kMostTrimmed - start % kMostTrimmed);
    auto reply = std::make_shared<Reply>();
    // NOLINTNEXTLINE(clang-analyzer-cplusplus.NewDeleteLeaks): it does not see that libnbd frees
    wait(*connection_, reply,
         nbd_library().aio_trim(connection_->handle(), part, start,
                                callback<nbd_completion_callback>(on_completion, reply), 0),
         0, "trim");
    start += part;
  }
}

}  // namespace qb
