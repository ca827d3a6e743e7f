#include "source/nbd_status.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <deque>
#include <utility>

#include "source/nbd_connecting.h"

namespace qb {

namespace {

// A request's length has 32 bits; the limit keeps it a multiple of every block size.
constexpr uint64_t kMostAsked = 2ull << 30;
constexpr uint64_t kMostTrimmed = 1ull << 30;

// Trims under way at once: QEMU works on 16 requests of a client. Measured with trims of 64 KiB in
// qemu-storage-daemon 7.2: 16 take half the time of one after the other.
constexpr size_t kTrims = 16;
// Parts of a read or write, of at most 1 MiB: the server works on the next while one is on the
// line.
constexpr size_t kParts = 4;

// Maximum of one context in one reply: as many as nbdkit sends, and eight times QEMU's.
constexpr size_t kMostRuns = 1 << 20;
// The amount for a slow line: as much as QEMU sends.
constexpr uint64_t kMostStatusBytes = 1 << 20;

// How many runs of all contexts, and how much time, replies that are put together may take: a
// large disk of few runs is asked for in pieces of 2 GiB, each of which would go through the event
// loop of JavaScript, and that takes longer than the server's answer.
constexpr size_t kManyRuns = 1024;
constexpr std::chrono::milliseconds kSoon{20};

using Reply = NbdStatus::Reply;
using ReplyRef = std::shared_ptr<Reply>;

int on_extents(void* data, const char* context, uint64_t offset, uint32_t* entries, size_t count,
               int* error) noexcept {
  Reply& reply = **static_cast<ReplyRef*>(data);
  for (size_t i = 0; i < reply.contexts.size(); i++) {
    if (reply.contexts[i] != context) continue;
    // Each context is answered once, about the range asked for.
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

void require_success(const Reply& reply, const char* what) {
  if (reply.broken) throw NbdError(EPROTO, "the server's answer is malformed");
  if (reply.error != 0) throw NbdError(reply.error, what);
}

bool is_over(const Reply& reply) {
  return reply.completed || reply.broken;
}

// Adds the runs of a later reply; runs of equal flags become one.
void append(std::vector<StatusRun>& runs, const std::vector<StatusRun>& more) {
  for (const StatusRun& run : more) {
    if (!runs.empty() && runs.back().flags == run.flags) {
      runs.back().length += run.length;
    } else {
      runs.push_back(run);
    }
  }
}

}  // namespace

NbdStatus::NbdStatus(const NbdAddress& address, const std::vector<std::string>& contexts,
                     const std::shared_ptr<NbdCancel>& cancel)
    : connection_(connect_nbd(address, contexts, cancel)),
      contexts_(connection_->contexts()),
      info_(describe_export(*connection_, contexts_)) {}

std::vector<std::vector<StatusRun>> NbdStatus::status(uint64_t start, uint64_t length) {
  auto soon = NbdConnection::Clock::now() + kSoon;
  ReplyRef first = ask(start, length);
  connection_->wait_until([&] { return is_over(*first); }, kMostStatusBytes);
  pending_.reset();
  require_success(*first, "block status");
  Runs runs = std::move(first->runs);
  bool complete = is_complete(runs, first->length);
  for (uint64_t done = first->length; complete && done < length;) {
    size_t count = 0;
    for (const auto& of_context : runs) count += of_context.size();
    if (count > kManyRuns || NbdConnection::Clock::now() >= soon) break;
    ReplyRef reply = ask(start + done, length - done);
    // Late replies and failures are left to the call that begins with that range.
    bool came = connection_->wait_until([&] { return is_over(*reply); }, kMostStatusBytes, soon);
    if (!came || reply->broken || reply->error != 0) break;
    pending_.reset();
    complete = is_complete(reply->runs, reply->length);
    for (size_t i = 0; i < runs.size(); i++) append(runs[i], reply->runs[i]);
    done += reply->length;
  }
  return runs;
}

// The reply that is under way, or one for as much of a range as a request can ask for.
std::shared_ptr<Reply> NbdStatus::ask(uint64_t start, uint64_t length) {
  if (pending_ && pending_->start == start) return pending_;
  auto reply = std::make_shared<Reply>(Reply{contexts_, start, std::min(length, kMostAsked), {}});
  reply->runs.resize(contexts_.size());
  // NOLINTNEXTLINE(clang-analyzer-cplusplus.NewDeleteLeaks): it does not see that libnbd frees
  int64_t cookie = nbd_library().aio_block_status(
      connection_->handle(), reply->length, start, callback<nbd_extent_callback>(on_extents, reply),
      callback<nbd_completion_callback>(on_completion, reply), 0);
  if (cookie < 0) throw nbd_error();
  pending_ = reply;
  return reply;
}

// Whether each context that the server has covers a range exactly.
bool NbdStatus::is_complete(const Runs& runs, uint64_t length) const {
  for (size_t i = 0; i < runs.size(); i++) {
    uint64_t bytes = 0;
    for (const StatusRun& run : runs[i]) bytes += run.length;
    if (info_.contexts[i] && bytes != length) return false;
  }
  return true;
}

// Cut at multiples, so that a server that discards in large units gets whole ones.
void NbdStatus::trim(const std::vector<ByteRange>& ranges) {
  // libnbd would only say that the server can't.
  if (info_.read_only) throw NbdError(EPERM, "trim");
  std::deque<ReplyRef> sent;
  auto wait_for_oldest = [&] {
    connection_->wait_until([&] { return is_over(*sent.front()); }, 0);
    require_success(*sent.front(), "trim");
    sent.pop_front();
  };
  for (const ByteRange& range : ranges) {
    uint64_t end = range.start + range.length;
    for (uint64_t start = range.start; start < end;) {
      uint64_t part = std::min(end - start, kMostTrimmed - start % kMostTrimmed);
      sent.push_back(send_trim({start, part}));
      if (sent.size() == kTrims) wait_for_oldest();
      start += part;
    }
  }
  while (!sent.empty()) wait_for_oldest();
}

std::shared_ptr<Reply> NbdStatus::send_trim(const ByteRange& range) {
  auto reply = std::make_shared<Reply>();
  // NOLINTNEXTLINE(clang-analyzer-cplusplus.NewDeleteLeaks): it does not see that libnbd frees
  int64_t cookie =
      nbd_library().aio_trim(connection_->handle(), range.length, range.start,
                             callback<nbd_completion_callback>(on_completion, reply), 0);
  if (cookie < 0) throw nbd_error();
  return reply;
}

void NbdStatus::transfer(Op op, uint64_t start, uint64_t length,
                         std::shared_ptr<std::vector<uint8_t>> memory, bool no_hole) {
  // libnbd would only say that the server can't.
  if (info_.read_only && op != Op::kRead) throw NbdError(EPERM, "write");
  auto sent = std::make_unique<Sent>();
  sent->memory = std::move(memory);
  sent->transfer.op = op;
  sent->transfer.offset = start;
  sent->transfer.length = length;
  if (sent->memory) sent->transfer.iov.push_back({sent->memory->data(), sent->memory->size()});
  split(&sent->transfer, info_.block_max, sent->parts);
  const auto& parts = sent->parts;
  int error = 0;
  auto wait_for = [&](const NbdPart& part) {
    connection_->wait_until([&] { return part.completed || part.broken; },
                            part_limit(info_.block_max));
    if (part.broken) throw NbdError(EPROTO, "the server's answer is malformed");
    if (error == 0) error = part.error;
  };
  try {
    for (size_t i = 0; i < parts.size(); i++) {
      if (i >= kParts) wait_for(*parts[i - kParts]);
      if (!parts[i]->send(connection_->handle(), no_hole)) throw nbd_error();
    }
    for (size_t i = parts.size() - std::min(parts.size(), kParts); i < parts.size(); i++) {
      wait_for(*parts[i]);
    }
  } catch (...) {
    abandoned_.push_back(std::move(sent));
    throw;
  }
  if (error != 0) throw NbdError(error, op == Op::kRead ? "read" : "write");
}

}  // namespace qb
