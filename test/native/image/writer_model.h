// Drives a Qcow2Writer and remembers, cluster by cluster, what the image must say.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "image/decoder.h"
#include "image/memory_output.h"
#include "image/qcow2_writer.h"

namespace qb::test {

class WriterModel {
 public:
  explicit WriterModel(const ImageOptions& options)
      : options_(options),
        cluster_size_(1ull << options.cluster_bits),
        left_((options.size + cluster_size_ - 1) / cluster_size_),
        writer_(options, pool_, output_) {}

  // Guest clusters that were not given yet.
  uint64_t left() const { return left_; }
  uint64_t next() const { return expected_.size(); }
  // For disks with more clusters than anybody wants to remember.
  Qcow2Writer& writer() { return writer_; }
  MemoryOutput& output() { return output_; }

  // All of them for `clusters` clusters from next() on.
  void data(uint64_t clusters) {
    BufferRef memory = pool_.get(clusters * cluster_size_);
    for (uint64_t i = 0; i < clusters; i++) {
      fill(memory->data() + i * cluster_size_, cluster_size_);
      expect({GuestCluster::kData, stamp_, 0});
    }
    writer_.write_data(memory->data(), length_of(clusters), memory);
  }
  // One cluster, as a stream of `size` bytes (which need not be one that expands to anything).
  void compressed(size_t size) {
    Bytes stream(size);
    fill(stream.data(), size);
    expect({GuestCluster::kCompressed, stamp_, size});
    writer_.write_compressed(stream.data(), size);
    // The writer copies: what happens to the memory afterwards does not matter.
    std::fill(stream.begin(), stream.end(), uint8_t{0xee});
  }
  void zero(uint64_t clusters) {
    bool hides = !options_.backing_file.empty();
    for (uint64_t i = 0; i < clusters; i++) {
      expect({hides ? GuestCluster::kZero : GuestCluster::kUnallocated, 0, 0});
    }
    writer_.write_zeroes(length_of(clusters));
  }
  void skip(uint64_t clusters) {
    for (uint64_t i = 0; i < clusters; i++) expect({GuestCluster::kUnallocated, 0, 0});
    writer_.skip(length_of(clusters));
  }

  // Finishes the image and REQUIREs that it is a sound one. Returns its decoder, which this object
  // must outlive.
  Decoder decode() {
    writer_.finish();
    size_t before = output_.puts().size();
    for (const MemoryOutput::Put& put : output_.puts()) REQUIRE(put.offset != 0);
    writer_.write_header();
    REQUIRE(output_.puts().size() == before + 1);
    REQUIRE(output_.puts().back().offset == 0);
    REQUIRE(output_.puts().back().size == cluster_size_);
    output_.require_sound(cluster_size_);

    // The file ends with the last cluster that was put, all of it.
    uint64_t length = writer_.file_length();
    REQUIRE(length == output_.length());
    REQUIRE(length % cluster_size_ == 0);
    Decoder decoder(
        [this](uint64_t at, uint8_t* into, size_t size) { output_.read(at, into, size); }, length);
    std::vector<std::string> problems = decoder.problems();
    std::string first = problems.empty() ? "" : problems.front();
    REQUIRE(first == "");
    check_header(decoder);
    return decoder;
  }

  // REQUIREs that every cluster is what was asked for, besides. Not after calls of writer().
  Decoder finish() {
    Decoder decoder = decode();
    check_clusters(decoder);
    return decoder;
  }

 private:
  struct Expected {
    GuestCluster::Kind kind;
    uint64_t stamp;
    size_t size;
  };

  void expect(Expected cluster) {
    expected_.push_back(cluster);
    left_--;
  }

  // The last cluster is given as long as the disk has it.
  uint64_t length_of(uint64_t clusters) const {
    uint64_t start = (expected_.size() - clusters) * cluster_size_;
    return std::min(clusters * cluster_size_, options_.size - start);
  }

  // Bytes that no other call makes.
  void fill(uint8_t* at, size_t size) { pattern(++stamp_, at, size); }
  static void pattern(uint64_t stamp, uint8_t* at, size_t size) {
    uint64_t word = stamp * 0x9e3779b97f4a7c15;
    for (size_t i = 0; i < size; i += 8) memcpy(at + i, &word, std::min<size_t>(8, size - i));
  }

  void check_header(const Decoder& decoder) const {
    const DecodedHeader& header = decoder.header();
    REQUIRE(header.cluster_bits == options_.cluster_bits);
    REQUIRE(header.size == options_.size);
    REQUIRE((header.backing_offset != 0) == !options_.backing_file.empty());
    REQUIRE(decoder.backing_name() == options_.backing_file);
    REQUIRE(decoder.backing_format() == options_.backing_format);
    REQUIRE(header.compression == static_cast<uint8_t>(options_.compression));
  }

  void check_clusters(const Decoder& decoder) {
    REQUIRE(expected_.size() == decoder.clusters());
    uint64_t wrong = 0, out_of_order = 0;
    uint64_t end = 0;
    Bytes want, got;
    for (uint64_t i = 0; i < expected_.size(); i++) {
      GuestCluster mapped = decoder.cluster(i);
      const Expected& expected = expected_[i];
      if (mapped.kind != expected.kind) {
        wrong++;
        continue;
      }
      if (mapped.kind != GuestCluster::kData && mapped.kind != GuestCluster::kCompressed) continue;
      bool stream = mapped.kind == GuestCluster::kCompressed;
      size_t size = stream ? expected.size : cluster_size_;
      // No sector more is named than the stream touches.
      if (stream && (mapped.host + size + 511) / 512 * 512 != mapped.host + mapped.size) wrong++;
      want.resize(size);
      got.resize(size);
      pattern(expected.stamp, want.data(), size);
      output_.read(mapped.host, got.data(), size);
      if (want != got) wrong++;
      // Streams share clusters, so data may come to stand behind the end of streams to come.
      uint64_t& last = stream ? stream_end_ : end;
      if (mapped.host < last) out_of_order++;
      last = mapped.host + size;
    }
    REQUIRE(wrong == 0);
    REQUIRE(out_of_order == 0);
  }

  ImageOptions options_;
  uint64_t cluster_size_;
  uint64_t left_;
  BufferPool pool_;
  MemoryOutput output_;
  Qcow2Writer writer_;
  std::vector<Expected> expected_;
  uint64_t stamp_ = 0;
  uint64_t stream_end_ = 0;
};

}  // namespace qb::test
