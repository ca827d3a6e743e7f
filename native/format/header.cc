#include "format/header.h"

#include <cerrno>
#include <iterator>
#include <string_view>

#include "base/bytes.h"
#include "base/error.h"

namespace qb {

namespace {

constexpr uint32_t kMagic = 0x514649fb;  // "QFI\xfb"
constexpr uint32_t kVersion = 3;
// As QEMU writes it: with compression_type and its padding.
constexpr uint32_t kHeaderLength = 112;
constexpr uint64_t kIncompatibleCompression = 1u << 3;

constexpr uint32_t kExtBackingFormat = 0xe2792aca;
constexpr uint32_t kExtFeatureNames = 0x6803f857;

struct FeatureName {
  uint8_t type;  // 0 incompatible, 1 compatible, 2 autoclear
  uint8_t bit;
  const char* name;
};

// All that the specification defines: a program that meets a bit which it does not know can then
// say its name.
constexpr FeatureName kFeatureNames[] = {
    {0, 0, "dirty bit"},        {0, 1, "corrupt bit"},       {0, 2, "external data file"},
    {0, 3, "compression type"}, {0, 4, "extended L2"},       {1, 0, "lazy refcounts"},
    {2, 0, "bitmaps"},          {2, 1, "raw external data"},
};
constexpr size_t kFeatureNameSize = 48;

// Appends to a header cluster, and refuses to leave it.
class HeaderArea {
 public:
  explicit HeaderArea(std::vector<uint8_t>& bytes) : bytes_(bytes) {}

  uint64_t position() const { return position_; }

  void skip_to(uint64_t position) { position_ = position; }

  void extension(uint32_t type, std::string_view data) {
    put_be32(take(4), type);
    put_be32(take(4), static_cast<uint32_t>(data.size()));
    text(data);
    position_ = round_up(position_, 8);
  }

  void text(std::string_view data) {
    if (!data.empty()) memcpy(take(data.size()), data.data(), data.size());
  }

 private:
  uint8_t* take(size_t size) {
    if (position_ + size > bytes_.size()) throw Error(ENAMETOOLONG, "backing file name");
    uint8_t* at = bytes_.data() + position_;
    position_ += size;
    return at;
  }

  std::vector<uint8_t>& bytes_;
  uint64_t position_ = 0;
};

std::string feature_names() {
  std::string table;
  for (const FeatureName& feature : kFeatureNames) {
    std::string entry{static_cast<char>(feature.type), static_cast<char>(feature.bit)};
    entry += feature.name;
    entry.resize(kFeatureNameSize, '\0');
    table += entry;
  }
  return table;
}

}  // namespace

std::vector<uint8_t> encode_header(const Header& header) {
  std::vector<uint8_t> bytes(1u << header.cluster_bits);
  uint8_t* at = bytes.data();
  bool zstd = header.compression == CompressionType::kZstd;

  put_be32(at + 0, kMagic);
  put_be32(at + 4, kVersion);
  put_be32(at + 20, header.cluster_bits);
  put_be64(at + 24, header.size);
  put_be32(at + 36, header.l1_size);
  put_be64(at + 40, header.l1_offset);
  put_be64(at + 48, header.reftable_offset);
  put_be32(at + 56, header.reftable_clusters);
  put_be64(at + 72, zstd ? kIncompatibleCompression : 0);
  put_be32(at + 96, kRefcountOrder);
  put_be32(at + 100, kHeaderLength);
  at[104] = static_cast<uint8_t>(header.compression);

  HeaderArea area(bytes);
  area.skip_to(kHeaderLength);
  if (!header.backing_file.empty()) area.extension(kExtBackingFormat, header.backing_format);
  // In small clusters the room belongs to the backing file's name.
  if (bytes.size() > 4096) area.extension(kExtFeatureNames, feature_names());
  area.extension(0, {});
  if (!header.backing_file.empty()) {
    if (header.backing_file.size() > kMaxBackingName) {
      throw Error(ENAMETOOLONG, "backing file name");
    }
    put_be64(at + 8, area.position());
    put_be32(at + 16, static_cast<uint32_t>(header.backing_file.size()));
    area.text(header.backing_file);
  }
  return bytes;
}

}  // namespace qb
