#include "copy/layers.h"

#include <algorithm>
#include <random>

#include "copy/copying.h"
#include "support/engine_kinds.h"

using namespace qb;
using namespace qb::test;

namespace {

constexpr uint64_t kLayerUnit = 4096;
// More than a block of the hash, and no whole number of units.
constexpr uint64_t kLayersSize = (5 << 20) + 1024;

enum class LayerHolds { kNothing, kZero, kData };

// Images of a chain, top first, as files of their clusters in the order of the guest.
struct LayerChain {
  std::vector<std::vector<Row>> layers;
  std::vector<Row> plan;
  std::vector<TempFile> files;

  // `below`: whether there is an image below them, to which what none of them holds is left.
  LayerChain(size_t count, bool below, uint32_t seed) : layers(count), files(count) {
    std::mt19937 random(seed);
    for (size_t i = 0; i < count; i++) make_layer(i, below || i + 1 < count, random);
    for (uint64_t at = 0; at < kLayersSize; at += kLayerUnit) add_to_plan(at, below);
  }

  void make_layer(size_t i, bool has_backing, std::mt19937& random) {
    Bytes content;
    for (uint64_t at = 0; at < kLayersSize;) {
      unsigned n = random();
      auto holds = static_cast<LayerHolds>(n % 3);
      uint64_t length =
          std::min((1 + random() % (n % 16 == 0 ? 600 : 20)) * kLayerUnit, kLayersSize - at);
      Row row{.kind = RowKind::kSkip,
              .start = at,
              .length = length,
              .file = static_cast<uint32_t>(i),
              .own = true};
      if (holds == LayerHolds::kZero) row.kind = has_backing ? RowKind::kZero : RowKind::kSkip;
      if (holds == LayerHolds::kData) {
        row.kind = RowKind::kData;
        row.offset = content.size();
        Bytes bytes = text_bytes(length, random());
        // A cluster of zeroes, stored as data.
        if (n % 5 == 0) std::fill_n(bytes.begin(), std::min(length, kLayerUnit), uint8_t{0});
        content.insert(content.end(), bytes.begin(), bytes.end());
        content.resize((content.size() + kLayerUnit - 1) / kLayerUnit * kLayerUnit);
      }
      layers[i].push_back(row);
      at += length;
    }
    content.resize(content.size() + kLayerUnit);
    files[i].write(0, content);
  }

  void add_to_plan(uint64_t at, bool below) {
    uint64_t length = std::min(kLayerUnit, kLayersSize - at);
    for (const auto& layer : layers) {
      auto row =
          std::find_if(layer.begin(), layer.end(), [&](const Row& r) { return at < r.end(); });
      if (row->kind == RowKind::kSkip) continue;
      Row part = row->slice(at - row->start, length);
      part.own = false;
      if (!below && part.kind == RowKind::kZero) part.kind = RowKind::kSkip;
      plan.push_back(part);
      return;
    }
    plan.push_back({.kind = RowKind::kSkip, .start = at, .length = length});
  }

  CopySpec spec(const TempFile& target, bool below) const {
    CopySpec spec;
    for (size_t i = 0; i < files.size(); i++) {
      auto size = static_cast<uint64_t>(lseek(files[i].fd(), 0, SEEK_END));
      spec.sources.push_back({FileStore{files[i].fd()}, size});
    }
    image_of(spec).store.fd = target.fd();
    image_of(spec).cluster_bits = 12;
    if (below) image_of(spec).backing_file = "base.qcow2";
    spec.size = kLayersSize;
    spec.memory = 16 << 20;
    return spec;
  }

  // That of one of them alone.
  std::string hash_of(size_t i, CopySpec spec, bool has_backing) const {
    spec.layers = {};
    spec.target = HashTarget{.unit = kLayerUnit, .has_backing = has_backing};
    std::vector<Row> rows = layers[i];
    for (Row& row : rows) row.own = false;
    Copy copy(spec);
    CHECK(copy.run(rows).message == "");
    return copy.job().checksums().content;
  }
};

// What a copy says that has rows of layers with which something is wrong.
std::string message_of_layers(const std::function<void(Row&)>& change) {
  LayerChain chain(2, true, 1);
  const TempFile target;
  CopySpec spec = chain.spec(target, true);
  spec.layers = {{.file = 1, .has_backing = true}};
  std::vector<Row> rows = chain.layers[1];
  change(rows[1]);
  rows.insert(rows.end(), chain.plan.begin(), chain.plan.end());
  return Copy(spec).run(rows, rows.size()).message;
}

}  // namespace

TEST_CASE(
    "CopyJob: the hashes of layers are those of each alone, and the disk is as without them") {
  uint32_t seed = 0;
  for (EngineKind kind : engine_kinds()) {
    for (bool below : {false, true}) {
      for (bool compress : {false, true}) {
        LayerChain chain(3, below, ++seed);
        const TempFile target, plain;
        CopySpec spec = chain.spec(target, below);
        spec.engine = kind;
        spec.hash = true;
        if (compress) image_of(spec).compression = {.level = 1};
        CopySpec without = spec;
        image_of(without).store.fd = plain.fd();
        spec.layers = {{.file = 2, .has_backing = below}, {.file = 0, .has_backing = true}};
        std::vector<Row> rows = chain.layers[0];
        rows.insert(rows.end(), chain.layers[2].begin(), chain.layers[2].end());
        rows.insert(rows.end(), chain.plan.begin(), chain.plan.end());
        Copy copy(spec), other(without);
        CHECK(copy.run(rows, rows.size()).message == "");
        CHECK(other.run(chain.plan).message == "");
        const auto& [content, layers] = copy.job().checksums();
        CHECK(content == other.job().checksums().content);
        REQUIRE(layers.size() == 2);
        CHECK(layers[0] == chain.hash_of(2, spec, below));
        CHECK(layers[1] == chain.hash_of(0, spec, true));
        CHECK(copy.job().counters().read > other.job().counters().read);
        auto size = static_cast<size_t>(lseek(plain.fd(), 0, SEEK_END));
        CHECK((target.read(0, size) == plain.read(0, size)));
      }
    }
  }
}

TEST_CASE("CopyJob: rows of layers that do not fit are refused") {
  CHECK(message_of_layers([](Row&) {}) == "");
  for (const std::function<void(Row&)>& change : std::vector<std::function<void(Row&)>>{
           [](Row& row) { row.start += kLayerUnit; },
           [](Row& row) { row.length -= 512; },
           [](Row& row) { row.length = kLayersSize; },
           [](Row& row) { row.file = 0; },
           [](Row& row) { row.own = false; },
       }) {
    CHECK(message_of_layers(change) != "");
  }
}

TEST_CASE("unpack_rows: rows of layers have the kinds of others and a bit more") {
  double columns[] = {kOwnRows, 0, 4096, 1, 0, 0, 0, 0, kOwnRows + 2, 4096, 512, 1, 8192, 0, 0, 0};
  std::vector<Row> rows = unpack_rows(columns, 2, 2);
  CHECK(rows[0].own);
  CHECK(rows[0].kind == RowKind::kSkip);
  CHECK(rows[1].own);
  CHECK(rows[1].kind == RowKind::kData);
  CHECK(rows[1].offset == 8192);
  // Their file is one that is there, also where nothing is read.
  columns[3] = 2;
  CHECK_THROWS_AS(unpack_rows(columns, 2, 2), Error);
  columns[3] = 1;
  columns[0] = kOwnRows + 5;
  CHECK_THROWS_AS(unpack_rows(columns, 2, 2), Error);
}
