// Does memory hold nothing but zero bytes?
#pragma once

#include <cstddef>

namespace qb {

// True when all `size` bytes at `data`, at any address, are zero (or there are none).
bool is_zero(const void* data, size_t size);

}  // namespace qb
