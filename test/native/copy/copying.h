// Runs copies between temporary files, and makes plans whose outcome is known byte by byte.
#pragma once

#include <doctest/doctest.h>

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "copy/error.h"
#include "copy/job.h"
#include "image/decoder.h"
#include "support/bytes.h"
#include "support/descriptor_engine.h"
#include "support/temp_file.h"

namespace qb::test {

// Puts the engines of the copies made while it lives into others. Around them all is one that looks
// whether requests go to the right files.
class Wrapped {
 public:
  using Wrap = std::function<std::unique_ptr<Engine>(std::unique_ptr<Engine>)>;

  explicit Wrapped(Wrap wrap) { wrap_ = std::move(wrap); }
  ~Wrapped() { wrap_ = nullptr; }
  Wrapped(const Wrapped&) = delete;
  Wrapped& operator=(const Wrapped&) = delete;

  static std::unique_ptr<Engine> make(EngineKind kind, unsigned depth) {
    std::unique_ptr<Engine> engine = make_engine(kind, depth);
    if (wrap_) engine = wrap_(std::move(engine));
    return std::make_unique<DescriptorEngine>(std::move(engine), wrong_descriptors_);
  }
  // Requests of all copies until now whose descriptor was closed or another file.
  static size_t wrong_descriptors() { return wrong_descriptors_; }

 private:
  static inline size_t wrong_descriptors_ = 0;
  // A job takes a plain function for its engine.
  static inline Wrap wrap_;
};

// How a copy ended.
struct Outcome {
  bool complete = false;
  std::optional<Failure> failure;  // of a CopyError
  int errnum = 0;
  uint32_t file = 0;
  uint64_t offset = 0;
  std::string message;
};

// A job and the one who waits for it. A wait of a minute is a hang and ends the test.
class Copy {
 public:
  explicit Copy(const CopySpec& spec) : job_(spec, Wrapped::make) {}

  CopyJob& job() { return job_; }
  void start();
  // Pushes `rows`, `batch` at a time, as soon as there is room.
  void push(const std::vector<Row>& rows, size_t batch);
  // Closes the plan, waits for the end.
  Outcome finish();
  // Waits for the end only.
  Outcome wait();

  // All at once.
  Outcome run(const std::vector<Row>& rows, size_t batch = 1000) {
    start();
    push(rows, batch);
    return finish();
  }

 private:
  void wait_until(const std::function<bool()>& condition);

  // Declared before the job, whose thread uses them to its end.
  std::mutex mutex_;
  std::condition_variable changed_;
  CopyJob job_;
};

// A source of three files (two plain ones, the third of compressed clusters), a plan that reads
// them, and what the target must then read as.
class Plan {
 public:
  struct Options {
    uint64_t size = 1 << 20;  // bytes
    uint64_t unit = 65536;    // what is skipped over a backing file is a multiple of it
    bool backing = false;
    bool compressed = true;  // whether rows of compressed clusters are among them
    unsigned runs = 30;      // about so many rows
    uint32_t seed = 1;
  };

  explicit Plan(const Options& options);

  const std::vector<Row>& rows() const { return rows_; }
  const Bytes& expected() const { return expected_; }
  const Bytes& backing() const { return backing_; }
  const TempFile& source(size_t index) const { return files_[index]; }
  // The counters of a complete copy in units of `unit` bytes, but for `read`.
  CopyCounters counters(uint64_t unit) const;
  // Sources, size and backing file; the target is `target`, an image.
  CopySpec spec(const TempFile& target) const;

 private:
  void add_row(std::mt19937& random);

  Options options_;
  TempFile files_[3];
  std::vector<Row> rows_;
  std::vector<bool> skipped_;  // guest bytes
  Bytes expected_;
  Bytes backing_;
};

// The target of a spec that makes an image.
inline Qcow2Target& image_of(CopySpec& spec) {
  return std::get<Qcow2Target>(spec.target);
}

// Whether the file begins as an image does.
bool looks_like_image(const TempFile& file);

// CHECKs that the target is sound and holds what the plan says.
void check_target(const TempFile& target, const Plan& plan, const CopySpec& spec);

}  // namespace qb::test
