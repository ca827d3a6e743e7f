#include "copy/reader.h"

#include <cerrno>
#include <cstring>

#include "base/bytes.h"
#include "codec/codec.h"
#include "copy/error.h"

namespace qb {

namespace {

void expand_stream(const Read& read, BufferPool& pool) {
  const Row& row = read.row;
  uint64_t available = std::min(row.size, read.transfer.done - read.lead);
  const uint8_t* stream = read.bounce->data() + read.lead;
  bool whole = row.length == row.cluster_size;
  BufferRef cluster = whole ? nullptr : pool.get(row.cluster_size);
  uint8_t* out = whole ? read.into : cluster->data();
  Compression type = row.kind == RowKind::kZstd ? Compression::kZstd : Compression::kDeflate;
  if (!decompress(type, stream, available, out, row.cluster_size)) {
    throw CopyError(Failure::kDecode, EIO, "compressed cluster", row.file, row.offset);
  }
  if (!whole) memcpy(read.into, out + row.within, row.length);
}

}  // namespace

Reader::Reader(std::vector<Store>& stores, Queue& queue, BufferPool& pool)
    : stores_(stores), queue_(queue), pool_(pool) {}

void Reader::start(Chunk& chunk, uint64_t unit) {
  chunk.padded = round_up(chunk.step.length, unit);
  chunk.buffer = pool_.get(chunk.padded);
  uint8_t* memory = chunk.buffer->data();
  uint64_t filled = 0;
  for (const Row& row : chunk.step.rows) {
    uint64_t at = row.start - chunk.step.start;
    memset(memory + filled, 0, at - filled);
    filled = at + row.length;
  }
  memset(memory + filled, 0, chunk.padded - filled);
  chunk.reads_left = chunk.step.rows.size();
  for (const Row& row : chunk.step.rows) start_row(chunk, row);
}

void Reader::start_row(Chunk& chunk, const Row& row) {
  Store& source = stores_[row.file];
  uint64_t size = row.compressed() ? row.size : row.length;
  // The sector-rounded range of a stream may end behind the file; a plain run may not.
  uint64_t needed = row.compressed() ? 1 : size;
  if (row.offset >= source.size || needed > source.size - row.offset) {
    throw CopyError(Failure::kShort, EIO, "read", row.file, row.offset);
  }

  auto read = std::make_unique<Read>();
  read->chunk = &chunk;
  read->row = row;
  read->into = chunk.buffer->data() + (row.start - chunk.step.start);
  Transfer& transfer = read->transfer;
  transfer.fd = source.file ? source.file->fd() : -1;
  transfer.alignment = source.alignment();
  transfer.tag = read.get();
  uint64_t bits = row.offset | row.length | reinterpret_cast<uintptr_t>(read->into);
  if (!row.compressed() && bits % transfer.alignment == 0) {
    transfer.offset = row.offset;
    transfer.iov = {{read->into, row.length}};
  } else {
    transfer.offset = round_down(row.offset, transfer.alignment);
    read->lead = row.offset - transfer.offset;
    uint64_t length = round_up(read->lead + size, transfer.alignment);
    read->bounce = pool_.get(length);
    transfer.iov = {{read->bounce->data(), length}};
  }
  read->needed = read->lead + needed;
  chunk.reads.push_back(std::move(read));
  if (source.nbd) {
    // The last block of an export may be cut short, as that of a file.
    uint64_t end = transfer.offset + transfer.iov[0].iov_len;
    if (end > source.size) transfer.iov[0].iov_len -= end - source.size;
    source.nbd->submit(&transfer);
  } else {
    queue_.submit(&transfer);
  }
}

Chunk* Reader::complete(Transfer* transfer) {
  Read* read = static_cast<Read*>(transfer->tag);
  uint64_t at = transfer->offset + transfer->done;
  if (transfer->error != 0) {
    const Store& store = stores_[read->row.file];
    std::string lost = store.nbd ? store.nbd->failure() : "";
    throw CopyError(lost.empty() ? Failure::kRead : Failure::kServer, transfer->error,
                    lost.empty() ? "read" : lost, read->row.file, at);
  }
  if (transfer->done < read->needed) {
    throw CopyError(Failure::kShort, EIO, "read", read->row.file, at);
  }
  return --read->chunk->reads_left == 0 ? read->chunk : nullptr;
}

void Reader::expand(Chunk& chunk, BufferPool& pool) {
  for (const auto& read : chunk.reads) {
    if (read->row.compressed()) {
      expand_stream(*read, pool);
    } else if (read->bounce) {
      memcpy(read->into, read->bounce->data() + read->lead, read->row.length);
    }
  }
  chunk.reads.clear();
}

}  // namespace qb
