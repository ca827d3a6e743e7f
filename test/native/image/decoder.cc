#include "image/decoder.h"

#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <utility>

namespace qb::test {

namespace {

constexpr uint64_t kBit63 = 0x8000000000000000, kBit62 = 0x4000000000000000;

uint64_t big_endian(const uint8_t* bytes, unsigned size) {
  uint64_t value = 0;
  for (unsigned i = 0; i < size; i++) value = value * 256 + bytes[i];
  return value;
}

bool inflate_raw(const Bytes& stream, Bytes& out) {
  z_stream z{};
  z.next_in = const_cast<Bytef*>(stream.data());
  z.avail_in = static_cast<uInt>(stream.size());
  z.next_out = out.data();
  z.avail_out = static_cast<uInt>(out.size());
  inflateInit2(&z, -15);
  int rc = inflate(&z, Z_FINISH);
  inflateEnd(&z);
  return rc == Z_STREAM_END && z.avail_out == 0;
}

bool unzstd(const Bytes& stream, Bytes& out) {
  ZSTD_DStream* z = ZSTD_createDStream();
  ZSTD_inBuffer in = {stream.data(), stream.size(), 0};
  ZSTD_outBuffer to = {out.data(), out.size(), 0};
  size_t left = 1;
  while (left != 0 && !ZSTD_isError(left) && in.pos < in.size) {
    left = ZSTD_decompressStream(z, &to, &in);
  }
  ZSTD_freeDStream(z);
  return left == 0 && to.pos == to.size;
}

}  // namespace

Decoder::Decoder(ReadAt read, uint64_t file_length)
    : read_(std::move(read)), file_length_(file_length) {
  DecodedHeader& h = header_;
  auto u32 = [this](uint64_t at) { return static_cast<uint32_t>(number(at, 4)); };
  h.magic = u32(0);
  h.version = u32(4);
  if (h.magic != 0x514649fb || h.version != 3) return;
  h.backing_offset = number(8, 8);
  h.backing_size = u32(16);
  h.cluster_bits = u32(20);
  h.size = number(24, 8);
  h.crypt = u32(32);
  h.l1_size = u32(36);
  h.l1_offset = number(40, 8);
  h.reftable_offset = number(48, 8);
  h.reftable_clusters = u32(56);
  h.snapshots = u32(60);
  h.incompatible = number(72, 8);
  h.compatible = number(80, 8);
  h.autoclear = number(88, 8);
  h.refcount_order = u32(96);
  h.length = u32(100);
  h.compression = static_cast<uint8_t>(number(104, 1));
  l1_ = numbers(h.l1_offset, h.l1_size);
  reftable_ = numbers(h.reftable_offset, h.reftable_clusters * cluster_size() / 8);
}

uint64_t Decoder::number(uint64_t at, unsigned size) const {
  uint8_t bytes[8];
  read_(at, bytes, size);
  return big_endian(bytes, size);
}

std::string Decoder::text(uint64_t at, size_t size) const {
  Bytes bytes(size);
  read_(at, bytes.data(), size);
  return {bytes.begin(), bytes.end()};
}

std::vector<uint64_t> Decoder::numbers(uint64_t at, uint64_t count) const {
  Bytes bytes(count * 8);
  read_(at, bytes.data(), bytes.size());
  std::vector<uint64_t> values(count);
  for (size_t i = 0; i < count; i++) values[i] = big_endian(&bytes[8 * i], 8);
  return values;
}

std::string Decoder::backing_format() const {
  for (uint64_t at = header_.length; at + 8 <= cluster_size();) {
    uint64_t type = number(at, 4), size = number(at + 4, 4);
    if (type == 0) break;
    if (type == 0xe2792aca) return text(at + 8, size);
    at += 8 + (size + 7) / 8 * 8;
  }
  return "";
}

const std::vector<uint64_t>& Decoder::l2(uint64_t offset) const {
  auto [at, fresh] = tables_.try_emplace(offset);
  if (fresh) at->second = numbers(offset, cluster_size() / 8);
  return at->second;
}

// The counts of a refcount block: refcount_order 4, two bytes each.
const std::vector<uint16_t>& Decoder::block(uint64_t offset) const {
  auto [at, fresh] = blocks_.try_emplace(offset);
  if (fresh) {
    Bytes bytes(cluster_size());
    read_(offset, bytes.data(), bytes.size());
    for (size_t i = 0; i < bytes.size(); i += 2) {
      at->second.push_back(static_cast<uint16_t>(big_endian(&bytes[i], 2)));
    }
  }
  return at->second;
}

uint64_t Decoder::refcount(uint64_t host_cluster) const {
  uint64_t per_block = cluster_size() / 2;
  uint64_t index = host_cluster / per_block;
  if (index >= reftable_.size() || reftable_[index] == 0) return 0;
  return block(reftable_[index])[host_cluster % per_block];
}

GuestCluster Decoder::cluster(uint64_t index) const {
  uint64_t per_table = cluster_size() / 8;
  uint64_t offset = table(index / per_table);
  uint64_t entry = offset == 0 ? 0 : l2(offset).at(index % per_table);
  if ((entry & kBit62) != 0) {
    unsigned x = 62 - (header_.cluster_bits - 8);
    uint64_t host = entry & ((1ull << x) - 1);
    uint64_t sectors = ((entry & ~(kBit63 | kBit62)) >> x) + 1;
    return {GuestCluster::kCompressed, host, sectors * 512 - host % 512};
  }
  if ((entry & 1) != 0) return {GuestCluster::kZero, entry & kOffset, 0};
  if ((entry & kOffset) != 0) return {GuestCluster::kData, entry & kOffset, 0};
  return {};
}

Bytes Decoder::content(const GuestCluster& cluster) const {
  Bytes bytes(cluster_size());
  if (cluster.kind == GuestCluster::kData) read_(cluster.host, bytes.data(), bytes.size());
  if (cluster.kind != GuestCluster::kCompressed) return bytes;
  Bytes stream(cluster.size);
  read_(cluster.host, stream.data(), stream.size());
  bool sound = header_.compression == 1 ? unzstd(stream, bytes) : inflate_raw(stream, bytes);
  return sound ? bytes : Bytes();
}

Bytes Decoder::disk(const Bytes& backing) const {
  Bytes all(header_.size);
  for (uint64_t i = 0; i < clusters(); i++) {
    uint64_t start = i * cluster_size();
    uint64_t length = std::min(cluster_size(), header_.size - start);
    GuestCluster mapped = cluster(i);
    Bytes bytes;
    if (mapped.kind != GuestCluster::kUnallocated) {
      bytes = content(mapped);
    } else if (start < backing.size()) {
      auto from = backing.begin() + static_cast<ptrdiff_t>(start);
      bytes.assign(from, from + static_cast<ptrdiff_t>(std::min(length, backing.size() - start)));
    }
    std::copy_n(bytes.begin(), std::min<size_t>(length, bytes.size()),
                all.begin() + static_cast<ptrdiff_t>(start));
  }
  return all;
}

std::vector<std::string> Decoder::problems() const {
  std::vector<std::string> found;
  auto expect = [&](bool ok, const std::string& what) {
    if (!ok && found.size() < 20) found.push_back(what);
  };
  const DecodedHeader& h = header_;
  expect(h.magic == 0x514649fb && h.version == 3, "not an image");
  if (!found.empty()) return found;
  uint64_t size = cluster_size(), per_table = size / 8;
  bool zstd = h.compression == 1;
  expect(h.length == 112 && h.crypt == 0 && h.snapshots == 0, "header");
  expect(h.refcount_order == 4, "refcount_order");
  expect(h.incompatible == (zstd ? 8 : 0) && h.compatible == 0 && h.autoclear == 0, "features");
  expect(h.compression <= 1, "compression_type");
  expect(h.l1_offset % size == 0 && h.reftable_offset % size == 0, "offset of a table");
  expect(h.l1_size == (clusters() + per_table - 1) / per_table, "l1_size");
  expect(h.backing_offset + h.backing_size <= size, "backing file name");

  // References to every cluster of the file, and what the first one was.
  std::map<uint64_t, std::pair<uint64_t, char>> references;
  auto refer = [&](uint64_t offset, char kind) {
    auto at = references.try_emplace(offset / size, 0, kind).first;
    at->second.first++;
    return at->second.second == kind;
  };
  auto own = [&](uint64_t offset, char kind) {
    expect(offset % size == 0, std::string("unaligned ") + kind);
    refer(offset, kind);
    expect(references[offset / size].first == 1, std::string("used twice: ") + kind);
  };
  auto area = [&](uint64_t offset, uint64_t bytes, char kind) {
    for (uint64_t i = 0; i < bytes; i += size) own(offset + i, kind);
  };

  own(0, 'h');
  area(h.l1_offset, h.l1_size * 8ull, '1');
  area(h.reftable_offset, h.reftable_clusters * size, 'r');
  for (uint64_t block : reftable_) {
    if (block != 0) own(block, 'b');
  }
  std::map<uint64_t, bool> all_zero_flags;  // of the tables seen
  for (uint64_t i = 0; i < l1_.size(); i++) {
    if (l1_[i] == 0) continue;
    uint64_t offset = table(i);
    expect((l1_[i] & ~(kOffset | kBit63)) == 0 && offset % size == 0 && offset != 0, "L1 entry");
    expect(((l1_[i] & kBit63) != 0) == (refcount(offset / size) == 1), "COPIED of an L1 entry");
    expect(refer(offset, '2'), "L2 table that is something else, too");
    const std::vector<uint64_t>& entries = l2(offset);
    auto [seen, fresh] = all_zero_flags.try_emplace(offset, false);
    if (!fresh) {
      expect(seen->second, "shared L2 table that is not all zero flags");
      continue;
    }
    seen->second = std::all_of(entries.begin(), entries.end(), [](uint64_t e) { return e == 1; });
    for (uint64_t j = 0; j < per_table; j++) {
      uint64_t entry = entries[j];
      if (entry == 0) continue;
      uint64_t index = i * per_table + j;
      expect(index < clusters(), "L2 entry behind the end of the disk");
      GuestCluster mapped = cluster(index);
      if (mapped.kind == GuestCluster::kCompressed) {
        expect((entry & kBit63) == 0, "COPIED of a compressed cluster");
        for (uint64_t at = mapped.host / size; at <= (mapped.host + mapped.size - 1) / size; at++) {
          expect(refer(at * size, 'c'), "stream over something else");
        }
      } else if (mapped.kind == GuestCluster::kData) {
        expect((entry & ~(kOffset | kBit63)) == 0, "L2 entry");
        expect((entry & kBit63) != 0, "no COPIED of a data cluster");
        own(mapped.host, 'd');
      } else {
        expect(entry == 1, "L2 entry of a zero cluster");
      }
    }
  }

  uint64_t end = (file_length_ + size - 1) / size;
  for (auto& [at, count] : references) {
    expect(at < end, "reference behind the end of the file");
    expect(refcount(at) == count.first, "refcount of " + std::to_string(at) + " (" + count.second +
                                            "): " + std::to_string(refcount(at)) + " instead of " +
                                            std::to_string(count.first));
  }
  // Beyond the end of the file, too: to the end of the last block.
  for (uint64_t i = 0; i < reftable_.size(); i++) {
    if (reftable_[i] == 0) continue;
    const std::vector<uint16_t>& counts = block(reftable_[i]);
    for (uint64_t j = 0; j < counts.size(); j++) {
      uint64_t at = i * counts.size() + j;
      if (counts[j] != 0) expect(references.contains(at), "leak at " + std::to_string(at));
    }
  }
  return found;
}

}  // namespace qb::test
