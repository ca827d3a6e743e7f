#include "compare/fetcher.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/bytes.h"
#include "copy/error.h"

namespace qb {

namespace {

// Maximum bytes of one read, unless a single row needs more: beyond that, larger reads are
// not faster.
constexpr uint64_t kMaxFetch = 1 << 20;

// Bytes between two rows in a file up to which reading them costs less than another request.
constexpr uint64_t kMaxGap = 16 << 10;

// Where the stored bytes of a row end in its file.
uint64_t stored_end(const Row& row) {
  return row.offset + (row.compressed() ? row.size : row.length);
}

}  // namespace

Fetcher::Fetcher(std::vector<Store>& stores, Queue& queue, BufferPool& pool)
    : stores_(stores), queue_(queue), pool_(pool) {}

void Fetcher::plan(PairChunk& chunk) {
  for (unsigned side = 0; side < 2; side++) plan_side(chunk, side);
}

void Fetcher::plan_side(PairChunk& chunk, unsigned side) {
  auto row_of = [&](uint32_t i) -> const Row& { return chunk.pairs[i].sides[side]; };
  chunk.fetch_of[side].assign(chunk.pairs.size(), nullptr);
  std::vector<uint32_t> order;
  for (uint32_t i = 0; i < chunk.pairs.size(); i++) {
    if (!row_of(i).reads()) continue;
    order.push_back(i);
    chunk.compressed |= row_of(i).compressed();
  }
  // Compressed clusters, above all, need not lie in the file as they do in the disk.
  std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    return std::pair(row_of(a).file, row_of(a).offset) <
           std::pair(row_of(b).file, row_of(b).offset);
  });
  Fetch* last = nullptr;
  for (uint32_t i : order) {
    const Row& row = row_of(i);
    uint64_t end = stored_end(row);
    bool joins = last && row_of(last->rows.front()).file == row.file &&
                 row.offset <= last->end + kMaxGap &&
                 std::max(end, last->end) - last->begin <= kMaxFetch;
    if (joins) {
      last->rows.push_back(i);
      last->end = std::max(end, last->end);
    } else {
      chunk.fetches.push_back(new_fetch(chunk, side, i));
      last = chunk.fetches.back().get();
    }
    chunk.fetch_of[side][i] = last;
  }
  for (const auto& fetch : chunk.fetches) {
    if (fetch->side == side) chunk.memory += fetch->end - fetch->begin + 2 * kPage;
  }
}

std::unique_ptr<Fetch> Fetcher::new_fetch(PairChunk& chunk, unsigned side, uint32_t row) {
  auto fetch = std::make_unique<Fetch>();
  fetch->chunk = &chunk;
  fetch->side = side;
  fetch->rows = {row};
  fetch->begin = chunk.pairs[row].sides[side].offset;
  fetch->end = stored_end(chunk.pairs[row].sides[side]);
  return fetch;
}

void Fetcher::start(PairChunk& chunk) {
  chunk.fetches_left = 0;
  for (const auto& fetch : chunk.fetches) submit(*fetch);
}

void Fetcher::submit(Fetch& fetch) {
  Store& store = stores_[fetch.chunk->pairs[fetch.rows.front()].sides[fetch.side].file];
  Transfer& transfer = fetch.transfer;
  const unsigned alignment = store.alignment();
  transfer.tag = &fetch;
  transfer.offset = round_down(fetch.begin, alignment);
  uint64_t length = round_up(fetch.end, alignment) - transfer.offset;
  fetch.memory = pool_.get(length);
  // Bytes past the end of the file read as zero, as in QEMU.
  uint64_t past = store.size() > transfer.offset ? store.size() - transfer.offset : 0;
  fetch.readable = std::min(length, past);
  memset(fetch.memory->data() + fetch.readable, 0, length - fetch.readable);
  transfer.iov = {{fetch.memory->data(), round_up(fetch.readable, alignment)}};
  if (fetch.readable == 0) return;
  fetch.chunk->fetches_left++;
  store.submit(transfer, queue_);
}

PairChunk* Fetcher::complete(Transfer* transfer) {
  Fetch& fetch = *static_cast<Fetch*>(transfer->tag);
  PairChunk& chunk = *fetch.chunk;
  if (transfer->error != 0) {
    uint32_t file = chunk.pairs[fetch.rows.front()].sides[fetch.side].file;
    std::string lost = stores_[file].failure();
    uint64_t at = transfer->offset + transfer->done;
    if (!lost.empty()) throw CopyError(Failure::kServer, transfer->error, lost, file, at);
    fetch.error = transfer->error;
    if (fetch.rows.size() > 1) split(fetch);
  }
  // Past the old end of the file a direct read may have returned data written meanwhile.
  uint64_t length = transfer->iov[0].iov_len;
  if (length > fetch.readable) {
    memset(fetch.memory->data() + fetch.readable, 0, length - fetch.readable);
  }
  return --chunk.fetches_left == 0 ? &chunk : nullptr;
}

void Fetcher::split(Fetch& fetch) {
  PairChunk& chunk = *fetch.chunk;
  for (uint32_t row : std::exchange(fetch.rows, {})) {
    auto single = new_fetch(chunk, fetch.side, row);
    chunk.fetch_of[fetch.side][row] = single.get();
    chunk.fetches.push_back(std::move(single));
    submit(*chunk.fetches.back());
  }
}

}  // namespace qb
