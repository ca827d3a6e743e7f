#include "copy/copying.h"

#include <sys/stat.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>

namespace qb::test {

namespace {

Bytes deflated(const Bytes& bytes) {
  Bytes out(bytes.size() * 2 + 100);
  z_stream z{};
  deflateInit2(&z, 6, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY);
  z.next_in = const_cast<Bytef*>(bytes.data());
  z.avail_in = static_cast<uInt>(bytes.size());
  z.next_out = out.data();
  z.avail_out = static_cast<uInt>(out.size());
  REQUIRE(deflate(&z, Z_FINISH) == Z_STREAM_END);
  out.resize(z.total_out);
  deflateEnd(&z);
  return out;
}

Bytes zstd(const Bytes& bytes) {
  Bytes out(ZSTD_compressBound(bytes.size()));
  out.resize(ZSTD_compress(out.data(), out.size(), bytes.data(), bytes.size(), 3));
  return out;
}

struct Stream {
  RowKind kind;
  uint64_t offset, size;
  Bytes content;
};

// What the files of every plan hold; made once, for it takes longer than a copy.
struct Contents {
  Bytes file[3];
  std::vector<Stream> streams;  // of the third

  Contents() {
    std::mt19937 random(11);
    for (int i = 0; i < 2; i++) {
      // No multiple of anything, and some of it zero.
      file[i] = text_bytes((1 << 20) + 777, random());
      for (int hole = 0; hole < 20; hole++) {
        auto at = file[i].begin() + static_cast<ptrdiff_t>(random() % 1000000);
        std::fill_n(at, 1 + random() % 30000, uint8_t{0});
      }
    }
    file[2].resize(512 + 33);
    for (int i = 0; i < 12; i++) {
      Bytes content = text_bytes(i % 3 == 0 ? 4096 : 65536, random());
      Bytes bytes = i % 2 == 0 ? deflated(content) : zstd(content);
      uint64_t start = file[2].size();
      file[2].insert(file[2].end(), bytes.begin(), bytes.end());
      // As an image tells it: to the end of the last sector, be that behind the end of the file.
      uint64_t end = (file[2].size() + 511) / 512 * 512;
      streams.push_back({i % 2 == 0 ? RowKind::kDeflate : RowKind::kZstd, start, end - start,
                         std::move(content)});
    }
  }
};

const Contents& contents() {
  static const Contents made;
  return made;
}

bool is_all_zero(const Bytes& bytes, uint64_t from, uint64_t to) {
  return std::all_of(bytes.begin() + static_cast<ptrdiff_t>(from),
                     bytes.begin() + static_cast<ptrdiff_t>(to),
                     [](uint8_t byte) { return byte == 0; });
}

}  // namespace

void Copy::start() {
  job_.start([this] {
    // Under the lock, so that it cannot fall between a look at the job and the wait.
    const std::lock_guard lock(mutex_);
    changed_.notify_all();
  });
}

void Copy::wait_until(const std::function<bool()>& condition) {
  std::unique_lock lock(mutex_);
  REQUIRE_MESSAGE(changed_.wait_for(lock, std::chrono::minutes(1), condition), "the copy hangs");
}

void Copy::push(const std::vector<Row>& rows, size_t batch) {
  for (size_t at = 0; at < rows.size(); at += batch) {
    wait_until([this] { return job_.has_room() || job_.ended(); });
    if (job_.ended()) return;
    auto from = rows.begin() + static_cast<ptrdiff_t>(at);
    job_.push({from, from + static_cast<ptrdiff_t>(std::min(batch, rows.size() - at))});
  }
}

Outcome Copy::finish() {
  job_.close();
  return wait();
}

Outcome Copy::wait() {
  wait_until([this] { return job_.ended(); });
  job_.join();
  CHECK(Wrapped::wrong_descriptors() == 0);
  Outcome outcome;
  if (!job_.failure()) {
    outcome.complete = true;
    return outcome;
  }
  try {
    std::rethrow_exception(job_.failure());
  } catch (const CopyError& error) {
    outcome.failure = error.failure();
    outcome.errnum = error.errnum();
    outcome.file = error.file();
    outcome.offset = error.offset();
    outcome.message = error.what();
  } catch (const Error& error) {
    outcome.errnum = error.errnum();
    outcome.message = error.what();
  }
  return outcome;
}

Plan::Plan(const Options& options) : options_(options) {
  std::mt19937 random(options.seed);
  for (int i = 0; i < 3; i++) files_[i].write(0, contents().file[i]);
  if (options.backing) backing_ = random_bytes(options.size * 3 / 4, options.seed + 1);
  while (expected_.size() < options.size) add_row(random);
}

void Plan::add_row(std::mt19937& random) {
  uint64_t at = expected_.size(), left = options_.size - at;
  auto upto = [&](uint64_t most) { return 1 + random() % most; };
  uint64_t average = std::max<uint64_t>(options_.size / options_.runs, 1);
  uint64_t length = upto(2 * average);
  if (random() % 2 == 0) length = (length + 511) / 512 * 512;
  if (random() % 3 == 0) length = (length + options_.unit - 1) / options_.unit * options_.unit;
  length = std::min(length, left);

  unsigned kind = random() % (options_.compressed ? 6 : 4);
  Row row{.kind = RowKind::kData, .start = at, .length = length};
  bool may_skip = !options_.backing || at % options_.unit == 0;
  if (kind == 0 && may_skip) {
    row.kind = RowKind::kSkip;
    if (options_.backing) {
      length = (length + options_.unit - 1) / options_.unit * options_.unit;
      row.length = length = std::min(length, left);
    }
    Bytes bytes(length);
    if (at < backing_.size()) {
      std::copy_n(backing_.begin() + static_cast<ptrdiff_t>(at),
                  std::min<uint64_t>(length, backing_.size() - at), bytes.begin());
    }
    expected_.insert(expected_.end(), bytes.begin(), bytes.end());
  } else if (kind == 1) {
    row.kind = RowKind::kZero;
    expected_.resize(at + length);
  } else if (kind < 4) {
    row.file = random() % 2;
    const Bytes& content = contents().file[row.file];
    row.length = length = std::min<uint64_t>(length, content.size());
    row.offset = random() % (content.size() - length + 1);
    if (random() % 2 == 0) row.offset = row.offset / 4096 * 4096;
    auto from = content.begin() + static_cast<ptrdiff_t>(row.offset);
    expected_.insert(expected_.end(), from, from + static_cast<ptrdiff_t>(length));
  } else {
    const Stream& stream = contents().streams[random() % contents().streams.size()];
    row.kind = stream.kind;
    row.file = 2;
    row.offset = stream.offset;
    row.size = stream.size;
    row.cluster_size = stream.content.size();
    bool whole = random() % 2 == 0 && left >= row.cluster_size;
    row.within = whole ? 0 : random() % row.cluster_size;
    row.length = length =
        whole ? row.cluster_size : std::min<uint64_t>(length, row.cluster_size - row.within);
    auto from = stream.content.begin() + static_cast<ptrdiff_t>(row.within);
    expected_.insert(expected_.end(), from, from + static_cast<ptrdiff_t>(length));
  }
  skipped_.resize(expected_.size(), row.kind == RowKind::kSkip);
  rows_.push_back(row);
}

CopyCounters Plan::counters(uint64_t unit) const {
  CopyCounters counters;
  for (uint64_t at = 0; at < options_.size; at += unit) {
    uint64_t end = std::min(at + unit, options_.size);
    if (options_.backing && skipped_[at]) {
      counters.unchanged += end - at;
    } else if (is_all_zero(expected_, at, end)) {
      counters.zero += end - at;
    } else {
      counters.data += end - at;
    }
  }
  counters.position = options_.size;
  return counters;
}

CopySpec Plan::spec(const TempFile& target) const {
  CopySpec spec;
  for (const TempFile& file : files_) {
    struct stat info;
    REQUIRE(fstat(file.fd(), &info) == 0);
    spec.sources.push_back({FileStore{file.fd()}, static_cast<uint64_t>(info.st_size)});
  }
  image_of(spec).store.fd = target.fd();
  spec.size = options_.size;
  if (options_.backing) {
    image_of(spec).backing_file = "base.raw";
    image_of(spec).backing_format = "raw";
  }
  spec.memory = 64 << 20;
  // Of no less interest where a copy fails.
  spec.hash = options_.seed % 2 == 0;
  return spec;
}

bool looks_like_image(const TempFile& file) {
  return file.read(0, 4) == Bytes{'Q', 'F', 'I', 0xfb};
}

void check_target(const TempFile& target, const Plan& plan, const CopySpec& spec) {
  struct stat info;
  REQUIRE(fstat(target.fd(), &info) == 0);
  Bytes file = target.read(0, static_cast<size_t>(info.st_size));
  const auto* image = std::get_if<Qcow2Target>(&spec.target);
  if (!image) {
    CHECK((file == plan.expected()));
    return;
  }
  Decoder decoder(
      [&](uint64_t at, uint8_t* into, size_t size) {
        std::fill_n(into, size, uint8_t{0});
        if (at >= file.size()) return;
        std::copy_n(file.begin() + static_cast<ptrdiff_t>(at), std::min(size, file.size() - at),
                    into);
      },
      file.size());
  CHECK(decoder.problems() == std::vector<std::string>());
  CHECK((decoder.disk(plan.backing()) == plan.expected()));
  CHECK(decoder.cluster_size() == 1u << image->cluster_bits);
}

}  // namespace qb::test
