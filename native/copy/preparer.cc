#include "copy/preparer.h"

#include <algorithm>
#include <utility>

#include "codec/codec.h"
#include "copy/classify.h"
#include "copy/reader.h"

namespace qb {

Preparer::Preparer(const CopySpec& spec, const DiskWriter& writer, BufferPool& pool,
                   Workers& workers, std::function<void()> prepared)
    : compression_(compression_of(spec)),
      unit_(writer.unit()),
      limit_(writer.compressed_limit()),
      pool_(pool),
      workers_(workers),
      prepared_(std::move(prepared)) {}

void Preparer::start(Chunk& chunk) {
  auto any_compressed = [](const std::vector<Row>& rows) {
    return std::any_of(rows.begin(), rows.end(), [](const Row& row) { return row.compressed(); });
  };
  bool heavy = compression_ || any_compressed(chunk.step.rows) || any_compressed(chunk.step.own);
  if (heavy) {
    in_progress_++;
    prepare_on_worker(chunk);
    return;
  }
  prepare(chunk);
  in_progress_++;
  std::lock_guard lock(mutex_);
  done_.push_back(&chunk);
}

void Preparer::prepare_on_worker(Chunk& chunk) {
  workers_.submit([this, &chunk] {
    std::exception_ptr failure;
    try {
      prepare(chunk);
    } catch (...) {
      failure = std::current_exception();
    }
    {
      std::lock_guard lock(mutex_);
      if (failure && !failure_) failure_ = failure;
      done_.push_back(&chunk);
    }
    prepared_();
  });
}

void Preparer::prepare(Chunk& chunk) {
  Reader::expand(chunk, pool_);
  if (!chunk.rows_left.empty()) return;
  auto compressor = borrow_compressor();
  classify(chunk, unit_, compressor.get(), limit_, pool_);
  if (!compressor) return;
  std::lock_guard lock(mutex_);
  compressors_.push_back(std::move(compressor));
}

std::unique_ptr<Compressor> Preparer::borrow_compressor() {
  if (!compression_) return nullptr;
  {
    std::lock_guard lock(mutex_);
    if (!compressors_.empty()) {
      auto compressor = std::move(compressors_.back());
      compressors_.pop_back();
      return compressor;
    }
  }
  bool zstd = compression_->type == CompressionType::kZstd;
  return make_compressor(zstd ? Compression::kZstd : Compression::kDeflate, compression_->level);
}

void Preparer::collect(std::vector<Chunk*>& chunks) {
  std::lock_guard lock(mutex_);
  if (failure_) std::rethrow_exception(failure_);
  in_progress_ -= done_.size();
  chunks.insert(chunks.end(), done_.begin(), done_.end());
  done_.clear();
}

}  // namespace qb
