// Runs comparisons of disks whose differences are known byte by byte.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "compare/job.h"
#include "copy/copying.h"
#include "copy/error.h"

namespace qb::test {

// How a comparison ended, and what was found until then.
struct Compared {
  bool complete = false;
  std::optional<Failure> failure;
  std::vector<Finding> findings;
  uint64_t position = 0;
};

// A job and the one who waits for it. A wait of a minute is a hang and ends the test.
class Comparison {
 public:
  explicit Comparison(const CompareSpec& spec) : job_(spec, Wrapped::make) {}

  CompareJob& job() { return job_; }

  // Pushes `batch` pairs at a time, as soon as there is room, and takes what is found. `close`:
  // says that no more come; else it waits for an end that something else brings about.
  Compared run(const std::vector<RowPair>& pairs, size_t batch = 1000, bool close = true) {
    job_.start([this] {
      const std::lock_guard lock(mutex_);
      changed_.notify_all();
    });
    Compared result;
    for (size_t at = 0; at < pairs.size() && !job_.ended(); at += batch) {
      wait_until(result, [this] { return job_.has_room() || job_.ended(); });
      auto from = pairs.begin() + static_cast<ptrdiff_t>(at);
      job_.push({from, from + static_cast<ptrdiff_t>(std::min(batch, pairs.size() - at))});
    }
    if (close) job_.close();
    wait_until(result, [this] { return job_.ended(); });
    job_.join();
    take(result);
    result.complete = !job_.failure();
    if (result.complete) return result;
    try {
      std::rethrow_exception(job_.failure());
    } catch (const CopyError& error) {
      result.failure = error.failure();
    } catch (const Error& error) {
      result.failure = Failure::kOther;
    }
    return result;
  }

 private:
  void take(Compared& result) {
    uint64_t position = job_.position();
    CHECK(position >= result.position);
    for (const Finding& finding : job_.take_findings()) {
      // Nothing comes in front of what was said to be compared; but a granule may begin there.
      CHECK(finding.end() > result.position);
      add_finding(result.findings, finding);
    }
    result.position = position;
  }

  template <typename Condition>
  void wait_until(Compared& result, Condition condition) {
    std::unique_lock lock(mutex_);
    bool came = changed_.wait_for(lock, std::chrono::minutes(1), [&] {
      lock.unlock();
      take(result);
      lock.lock();
      return condition();
    });
    REQUIRE_MESSAGE(came, "the comparison hangs");
  }

  // Declared before the job, whose thread uses them to its end.
  std::mutex mutex_;
  std::condition_variable changed_;
  CompareJob job_;
};

// A disk in three files, some of it compressed, beside a plain file that holds the same bytes but
// for some changes.
class Pair {
 public:
  explicit Pair(const Plan::Options& options, unsigned changes = 12)
      : plan_(options), random_(options.seed + 99) {
    bytes_ = plan_.expected();
    for (unsigned i = 0; i < changes; i++) {
      // Single bits, too, and bytes that become zero.
      size_t at = random_() % bytes_.size(), length = 1 + random_() % (i % 3 == 0 ? 5000 : 1);
      for (size_t n = at; n < std::min(at + length, bytes_.size()); n++) {
        bytes_[n] = i % 2 == 0 ? static_cast<uint8_t>(bytes_[n] ^ 64) : 0;
      }
    }
    // The disk does not begin where the file does.
    other_.write(kLead, bytes_);
    for (const Row& row : plan_.rows()) add_pairs(row);
  }

  static constexpr uint64_t kLead = 4096 + 512;
  static constexpr uint32_t kOtherFile = 3;

  const Plan& plan() const { return plan_; }
  const Bytes& bytes() const { return bytes_; }
  const TempFile& other() const { return other_; }
  const std::vector<RowPair>& pairs() const { return pairs_; }
  CompareSpec spec() const {
    CompareSpec spec;
    spec.sources = plan_.spec(other_).sources;
    spec.sources.push_back({FileStore{other_.fd()}, kLead + bytes_.size()});
    spec.memory = 24 << 20;
    return spec;
  }
  bool differs(uint64_t from, uint64_t to) const {
    to = std::min<uint64_t>(to, bytes_.size());
    return !std::equal(bytes_.begin() + static_cast<ptrdiff_t>(from),
                       bytes_.begin() + static_cast<ptrdiff_t>(to),
                       plan_.expected().begin() + static_cast<ptrdiff_t>(from));
  }
  // Starts of the granules that differ.
  std::set<uint64_t> granules(uint64_t granularity) const {
    std::set<uint64_t> found;
    for (uint64_t at = 0; at < bytes_.size(); at += granularity) {
      if (differs(at, at + granularity)) found.insert(at);
    }
    return found;
  }

 private:
  void add_pairs(const Row& row) {
    for (uint64_t done = 0; done < row.length;) {
      uint64_t length = std::min<uint64_t>(row.length - done, 1 + random_() % 40000);
      RowPair pair;
      pair.sides[0] = row.slice(done, length);
      pair.sides[1] = {.kind = RowKind::kData,
                       .start = row.start + done,
                       .length = length,
                       .file = kOtherFile,
                       .offset = kLead + row.start + done};
      // Either disk may be the first.
      if (pairs_.size() % 5 == 4) std::swap(pair.sides[0], pair.sides[1]);
      pairs_.push_back(pair);
      done += length;
    }
  }

  Plan plan_;
  std::mt19937 random_;
  Bytes bytes_;
  TempFile other_;
  std::vector<RowPair> pairs_;
};

// Starts of the granules in what was found.
inline std::set<uint64_t> granules_of(const std::vector<Finding>& findings, uint64_t granularity) {
  std::set<uint64_t> found;
  for (const Finding& finding : findings) {
    CHECK(finding.kind == FindingKind::kDiffers);
    CHECK(finding.start % granularity == 0);
    CHECK(finding.length % granularity == 0);
    for (uint64_t at = finding.start; at < finding.end(); at += granularity) {
      CHECK(found.insert(at).second);
    }
  }
  return found;
}

}  // namespace qb::test
