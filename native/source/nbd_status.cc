#include "source/nbd_status.h"

#include <algorithm>
#include <cerrno>
#include <utility>

namespace qb {

namespace {

// A request's length has 32 bits; the limit keeps it a multiple of every block size.
constexpr uint64_t kMostAsked = 2ull << 30;
constexpr uint64_t kMostTrimmed = 1ull << 30;

NbdExport export_info(const NbdConnection& connection, const std::vector<std::string>& contexts) {
  const NbdLibrary& nbd = nbd_library();
  nbd_handle* handle = connection.handle();
  NbdExport info;
  int64_t size = nbd.get_size(handle);
  if (size < 0) throw nbd_error();
  info.size = static_cast<uint64_t>(size);
  info.multi_conn = nbd.can_multi_conn(handle) == 1;
  info.read_only = nbd.is_read_only(handle) == 1;
  info.can_trim = nbd.can_trim(handle) == 1;
  info.can_zero = nbd.can_zero(handle) == 1;
  info.can_flush = nbd.can_flush(handle) == 1;
  // 0 or less: the server did not say.
  int64_t least = nbd.get_block_size(handle, LIBNBD_SIZE_MINIMUM);
  int64_t most = nbd.get_block_size(handle, LIBNBD_SIZE_MAXIMUM);
  if (least > 0) info.block_min = static_cast<uint64_t>(least);
  if (most > 0) info.block_max = std::min(info.block_max, static_cast<uint64_t>(most));
  for (const std::string& context : contexts) {
    info.contexts.push_back(nbd.can_meta_context(handle, context.c_str()) == 1);
  }
  return info;
}

// What one reply fills in, by libnbd's callbacks. Shared with these: a reply may come, or be thrown
// away with the connection, after nobody waits for it any more.
struct Reply {
  std::vector<std::string> contexts;
  uint64_t start = 0;
  std::vector<std::vector<StatusRun>> runs;
  std::shared_ptr<std::vector<uint8_t>> bytes = nullptr;  // where what is read goes
  bool completed = false;
  int error = 0;
};
using ReplyRef = std::shared_ptr<Reply>;

int on_extents(void* data, const char* context, uint64_t offset, uint32_t* entries, size_t count,
               int*) noexcept {
  Reply& reply = **static_cast<ReplyRef*>(data);
  for (size_t i = 0; i < reply.contexts.size(); i++) {
    if (reply.contexts[i] != context || offset != reply.start) continue;
    // A context that is answered twice counts once.
    std::vector<StatusRun> runs;
    for (size_t k = 0; k + 1 < count; k += 2) runs.push_back({entries[k], entries[k + 1]});
    reply.runs[i] = std::move(runs);
  }
  return 0;
}

int on_completion(void* data, int* error) noexcept {
  Reply& reply = **static_cast<ReplyRef*>(data);
  reply.completed = true;
  reply.error = *error;
  return 1;
}

void let_go(void* data) noexcept {
  delete static_cast<ReplyRef*>(data);
}

// libnbd calls `free` in any case, also when the request could not be made.
template <typename Callback, typename Function>
Callback callback(Function function, const ReplyRef& reply) {
  return {function, std::make_unique<ReplyRef>(reply).release(), let_go};
}

void wait(NbdConnection& connection, const ReplyRef& reply, int64_t cookie, const char* what) {
  if (cookie < 0) throw nbd_error();
  connection.wait_until([&] { return reply->completed; });
  if (reply->error != 0) throw NbdError(reply->error, what);
}

}  // namespace

NbdStatus::NbdStatus(const NbdAddress& address, const std::vector<std::string>& contexts)
    : connection_(address, contexts),
      contexts_(contexts),
      info_(export_info(connection_, contexts)) {}

std::vector<std::vector<StatusRun>> NbdStatus::status(uint64_t start, uint64_t length) {
  auto reply = std::make_shared<Reply>(Reply{contexts_, start, {}});
  reply->runs.resize(contexts_.size());
  // NOLINTNEXTLINE(clang-analyzer-cplusplus.NewDeleteLeaks): it does not see that libnbd frees
  wait(connection_, reply,
       nbd_library().aio_block_status(connection_.handle(), std::min(length, kMostAsked), start,
                                      callback<nbd_extent_callback>(on_extents, reply),
                                      callback<nbd_completion_callback>(on_completion, reply), 0),
       "block status");
  return std::move(reply->runs);
}

std::shared_ptr<std::vector<uint8_t>> NbdStatus::read(uint64_t start, uint64_t length) {
  auto bytes = std::make_shared<std::vector<uint8_t>>(length);
  for (uint64_t done = 0; done < length;) {
    uint64_t part = std::min(length - done, info_.block_max);
    auto reply = std::make_shared<Reply>();
    // The reply keeps the memory: it may be written after nobody waits any more.
    reply->bytes = bytes;
    // NOLINTNEXTLINE(clang-analyzer-cplusplus.NewDeleteLeaks): it does not see that libnbd frees
    wait(connection_, reply,
         nbd_library().aio_pread(connection_.handle(), bytes->data() + done, part, start + done,
                                 callback<nbd_completion_callback>(on_completion, reply), 0),
         "read");
    done += part;
  }
  return bytes;
}

// Cut at multiples, so that what a server discards in large units it finds whole.
void NbdStatus::trim(uint64_t start, uint64_t length) {
  // libnbd would only say that the server can't.
  if (info_.read_only) throw NbdError(EPERM, "trim");
  for (uint64_t end = start + length; start < end;) {
    uint64_t part = std::min(end - start, kMostTrimmed - start % kMostTrimmed);
    auto reply = std::make_shared<Reply>();
    // NOLINTNEXTLINE(clang-analyzer-cplusplus.NewDeleteLeaks): it does not see that libnbd frees
    wait(connection_, reply,
         nbd_library().aio_trim(connection_.handle(), part, start,
                                callback<nbd_completion_callback>(on_completion, reply), 0),
         "trim");
    start += part;
  }
}

std::shared_ptr<NbdConnection> NbdStatus::release_connection() {
  return std::make_shared<NbdConnection>(std::move(connection_));
}

}  // namespace qb
