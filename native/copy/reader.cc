#include "copy/reader.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>

#include "base/bytes.h"
#include "codec/codec.h"
#include "copy/error.h"

namespace qb {

namespace {

// Bytes of memory besides the chunk's own that one round of reads may take, the last read excepted.
// Plain clusters need none; of compressed ones of 64 KiB a whole chunk fits, and the largest there
// are take two reads at a time.
constexpr uint64_t kRoundBytes = 8 << 20;

// Reads before the last one that a row may go on with: one for each of some files in turn.
constexpr size_t kNearReads = 8;

void expand_stream(const Chunk& chunk, const Read& read, BufferPool& pool) {
  const Row& first = read.rows.front();
  uint64_t available = std::min(first.size, read.transfer.done - read.lead);
  const uint8_t* stream = read.bounce->data() + read.lead;
  // Two guest clusters may share one stream.
  bool whole = first.length == first.cluster_size && read.rows.size() == 1;
  BufferRef cluster = whole ? nullptr : pool.get(first.cluster_size);
  uint8_t* out = whole ? chunk.place_of(first) : cluster->data();
  Compression type = first.kind == RowKind::kZstd ? Compression::kZstd : Compression::kDeflate;
  if (!decompress(type, stream, available, out, first.cluster_size)) {
    throw CopyError(Failure::kDecode, EIO, "compressed cluster", first.file, first.offset);
  }
  if (whole) return;
  for (const Row& row : read.rows) memcpy(chunk.place_of(row), out + row.within, row.length);
}

// Those of the step, and those of layers that it does not show, in the order of the guest: so
// those that follow each other in a file are near each other.
std::vector<Row> rows_to_read(const Step& step) {
  std::vector<Row> rows = step.rows;
  if (step.hidden_bytes == 0) return rows;
  std::copy_if(step.own.begin(), step.own.end(), std::back_inserter(rows),
               [](const Row& row) { return row.hidden; });
  std::stable_sort(rows.begin(), rows.end(),
                   [](const Row& a, const Row& b) { return a.start < b.start; });
  return rows;
}

// Bytes from where rows begin in their chunk's memory, which itself begins at a page.
uint64_t place_in(const Chunk& chunk, const Row& row) {
  return row.hidden ? row.place : row.start - chunk.step.start;
}

}  // namespace

Reader::Reader(std::vector<Store>& stores, Queue& queue, BufferPool& pool)
    : stores_(stores), queue_(queue), pool_(pool) {}

void Reader::plan(Chunk& chunk, uint64_t unit) {
  chunk.buffer.reset();
  chunk.failure = nullptr;
  chunk.hidden.reset();
  chunk.padded = chunk.step.kind == Step::Kind::kData ? round_up(chunk.step.length, unit) : 0;
  chunk.rows_left = rows_to_read(chunk.step);
  plan_next(chunk);
  chunk.wanted += chunk.padded + chunk.step.hidden_bytes;
}

void Reader::plan_next(Chunk& chunk) {
  chunk.reads.clear();
  chunk.wanted = 0;
  // All rows of a compressed cluster go into one round, wherever they lie between the others: the
  // cluster is then read and expanded once for each chunk.
  std::vector<Row> later;
  for (const Row& row : chunk.rows_left) {
    if (joins_read(chunk, row) || continues_read(chunk, row)) continue;
    if (chunk.reads.empty() || chunk.wanted < kRoundBytes) {
      auto read = plan_read(chunk, row);
      chunk.wanted += sizeof(Read) + (read->bounced > 0 ? BufferPool::size_of(read->bounced) : 0);
      chunk.reads.push_back(std::move(read));
    } else {
      later.push_back(row);
    }
  }
  chunk.rows_left = std::move(later);
}

void Reader::start(Chunk& chunk) {
  if (chunk.step.hidden_bytes > 0 && !chunk.hidden) {
    chunk.hidden = pool_.get(chunk.step.hidden_bytes);
  }
  if (chunk.padded > 0 && !chunk.buffer) {
    chunk.buffer = pool_.get(chunk.padded);
    uint8_t* memory = chunk.buffer->data();
    uint64_t filled = 0;
    for (const Row& row : chunk.step.rows) {
      uint64_t at = row.start - chunk.step.start;
      memset(memory + filled, 0, at - filled);
      filled = at + row.length;
    }
    memset(memory + filled, 0, chunk.padded - filled);
  }
  for (const auto& read : chunk.reads) {
    if (read->bounced > 0) read->bounce = pool_.get(read->bounced);
  }
  // Before the first is handed over, which may come back at once.
  chunk.reads_left = chunk.reads.size();
  for (const auto& read : chunk.reads) submit(chunk, *read);
}

bool Reader::joins_read(Chunk& chunk, const Row& row) {
  if (!row.compressed()) return false;
  auto same = std::find_if(chunk.reads.rbegin(), chunk.reads.rend(), [&](const auto& read) {
    const Row& other = read->rows.front();
    return other.kind == row.kind && other.file == row.file && other.offset == row.offset &&
           other.size == row.size && other.cluster_size == row.cluster_size;
  });
  if (same == chunk.reads.rend()) return false;
  (*same)->rows.push_back(row);
  return true;
}

// Whether a plain row goes on where a read in the chunk ends: then it is part of that.
bool Reader::continues_read(Chunk& chunk, const Row& row) const {
  const Store& store = stores_[row.file];
  if (row.compressed() || !store.scatters()) return false;
  if ((row.length | place_in(chunk, row)) % store.alignment() != 0) return false;
  size_t tried = 0;
  for (auto at = chunk.reads.rbegin(); at != chunk.reads.rend() && tried < kNearReads; ++at) {
    Read& read = **at;
    const Row& last = read.rows.back();
    tried++;
    if (last.file != row.file || last.compressed() || read.bounced > 0) continue;
    if (last.offset + last.length != row.offset || last.length % store.alignment() != 0) continue;
    read.rows.push_back(row);
    read.needed += row.length;
    return true;
  }
  return false;
}

std::unique_ptr<Read> Reader::plan_read(const Chunk& chunk, const Row& row) const {
  unsigned alignment = stores_[row.file].alignment();
  auto read = std::make_unique<Read>();
  read->rows = {row};
  Transfer& transfer = read->transfer;
  uint64_t size = row.compressed() ? row.size : row.length;
  uint64_t bits = row.offset | row.length | place_in(chunk, row);
  bool direct = !row.compressed() && bits % alignment == 0;
  transfer.offset = direct ? row.offset : round_down(row.offset, alignment);
  read->lead = row.offset - transfer.offset;
  if (!direct) read->bounced = round_up(read->lead + size, alignment);
  // The sector-rounded range of a stream may end past the file; a plain run may not.
  read->needed = read->lead + (row.compressed() ? 1 : size);
  return read;
}

void Reader::submit(Chunk& chunk, Read& read) {
  const Row& row = read.rows.front();
  Store& source = stores_[row.file];
  if (read.transfer.offset + read.needed > source.size()) {
    throw CopyError(Failure::kShort, EIO, "read", row.file, row.offset);
  }
  read.chunk = &chunk;
  Transfer& transfer = read.transfer;
  transfer.tag = &read;
  if (read.bounce) {
    transfer.iov = {{read.bounce->data(), read.bounced}};
  } else {
    for (const Row& part : read.rows) {
      transfer.iov.push_back({chunk.place_of(part), part.length});
    }
  }
  source.submit(transfer, queue_);
}

Chunk* Reader::complete(Transfer* transfer) {
  const Read& read = *static_cast<Read*>(transfer->tag);
  Chunk& chunk = *read.chunk;
  uint32_t file = read.rows.front().file;
  uint64_t at = transfer->offset + transfer->done;
  if (transfer->error != 0) {
    std::string lost = stores_[file].failure();
    if (!lost.empty()) throw CopyError(Failure::kServer, transfer->error, lost, file, at);
    if (!chunk.failure) {
      chunk.failure =
          std::make_exception_ptr(CopyError(Failure::kRead, transfer->error, "read", file, at));
    }
  } else if (transfer->done < read.needed) {
    throw CopyError(Failure::kShort, EIO, "read", file, at);
  }
  return --chunk.reads_left == 0 ? &chunk : nullptr;
}

void Reader::expand(Chunk& chunk, BufferPool& pool) {
  for (const auto& read : chunk.reads) {
    const Row& row = read->rows.front();
    if (row.compressed()) {
      expand_stream(chunk, *read, pool);
    } else if (read->bounce) {
      memcpy(chunk.place_of(row), read->bounce->data() + read->lead, row.length);
    }
  }
  chunk.reads.clear();
}

}  // namespace qb
