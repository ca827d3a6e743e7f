// QEMU's own opinion of what the writer makes.
#include <doctest/doctest.h>

#include <random>

#include "image/qemu_img.h"
#include "image/writer_model.h"
#include "support/temp_file.h"

using namespace qb;
using namespace qb::test;

namespace {

// Writes the finished image and lets qemu-img look at it; returns what it says.
std::string check(WriterModel& model) {
  const TempFile file;
  for (const MemoryOutput::Put& put : model.output().puts()) {
    file.write(put.offset, Bytes(put.data, put.data + put.size));
  }
  file.truncate(model.writer().file_length());
  Ran ran = qemu_img("check -f qcow2 " + file.path());
  INFO(ran.output);
  CHECK(ran.status == 0);
  CHECK(ran.output.find("No errors were found") != std::string::npos);
  return ran.output;
}

// As an image in the same directory calls it.
std::string name_of(const TempFile& file) {
  return file.path().substr(file.path().rfind('/') + 1);
}

}  // namespace

TEST_CASE("qemu-img check: a disk of no bytes") {
  for (unsigned bits : {9u, 16u}) {
    WriterModel model({.cluster_bits = bits});
    model.finish();
    check(model);
  }
}

TEST_CASE("qemu-img check: data, zeroes, holes and streams, not fragmented without streams") {
  std::mt19937 random(5);
  for (unsigned bits : {9u, 12u, 16u, 21u}) {
    for (bool backing : {false, true}) {
      CAPTURE(bits);
      CAPTURE(backing);
      uint64_t clusters = bits == 21 ? 10 : 700;
      ImageOptions options = {.cluster_bits = bits, .size = (clusters << bits) - 512};
      const TempFile base;
      if (backing) {
        options.backing_file = name_of(base);
        options.backing_format = "raw";
      }
      WriterModel plain(options), packed(options);
      for (WriterModel* model : {&plain, &packed}) {
        while (model->left() > 0) {
          uint64_t run = std::min<uint64_t>(1 + random() % 30, model->left());
          switch (random() % (model == &packed ? 4 : 3)) {
            case 0:
              model->data(std::min<uint64_t>(run, bits == 21 ? 1 : 4));
              break;
            case 1:
              model->zero(run);
              break;
            case 2:
              model->skip(run);
              break;
            default:
              model->compressed(1 + random() % ((1u << bits) - 1));
          }
        }
      }
      plain.finish();
      packed.finish();
      CHECK(check(plain).find(" 0.00% fragmented") != std::string::npos);
      check(packed);
    }
  }
}

TEST_CASE("qemu-img check: a wiped disk over a backing file, one table for all of it") {
  const TempFile base;
  WriterModel model({.cluster_bits = 16,
                     .size = 1ull << 40,
                     .backing_file = name_of(base),
                     .backing_format = "raw"});
  model.writer().write_zeroes(1ull << 40);
  model.decode();
  check(model);
}
