// Writes into an existing file, in file order: skipped ranges stay unchanged.
#pragma once

#include "image/raw_writer.h"

namespace qb {

class PatchWriter : public RawWriter {
 public:
  // Bytes: `size`, the file's length from now on; `unit`, alignment of it and of every range.
  PatchWriter(uint64_t size, uint64_t unit, BufferPool& pool, Output& output);

  bool has_backing() const override { return true; }

  void write_zeroes(uint64_t length) override;
  void skip(uint64_t length) override;
};

}  // namespace qb
