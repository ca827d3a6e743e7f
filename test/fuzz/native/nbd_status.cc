// What an NBD server says of an export: any sizes, and any block status replies. libnbd itself is
// left out; in its place stands what answers with the bytes of the input.
#include "source/nbd_status.h"

#include <cstdlib>
#include <cstring>

#include "source/nbd_library.h"

using namespace qb;

namespace {

const std::vector<std::string> kContexts = {"base:allocation", "qemu:dirty-bitmap:b"};
constexpr uint64_t kStart = 65536;

// What is left of the input.
const uint8_t* input;
size_t left;

template <typename Number>
Number take() {
  Number number{};
  const size_t size = std::min(left, sizeof number);
  memcpy(&number, input, size);
  input += size;
  left -= size;
  return number;
}

// Calls back as libnbd does: once for each context that a server answers about, or more often.
int64_t answer(nbd_extent_callback extent, nbd_completion_callback completion) {
  int error = 0;
  for (uint8_t replies = take<uint8_t>() % 4; replies > 0; replies--) {
    const uint8_t which = take<uint8_t>();
    std::vector<uint32_t> entries(take<uint8_t>());
    for (uint32_t& entry : entries) entry = take<uint32_t>();
    const std::string context = which % 3 < 2 ? kContexts[which % 3] : "another";
    const uint64_t offset = which < 240 ? kStart : take<uint64_t>();
    extent.callback(extent.user_data, context.c_str(), offset, entries.data(), entries.size(),
                    &error);
  }
  error = take<uint8_t>() % 8 == 7 ? EIO : 0;
  completion.callback(completion.user_data, &error);
  extent.free(extent.user_data);
  completion.free(completion.user_data);
  return 1;
}

NbdLibrary fake() {
  NbdLibrary nbd{};
  nbd.create = [] { return reinterpret_cast<nbd_handle*>(&input); };
  nbd.close = [](nbd_handle*) {};
  nbd.get_error = []() -> const char* { return left % 2 ? "refused" : nullptr; };
  nbd.get_errno = [] { return static_cast<int>(left % 3); };
  nbd.set_uri_allow_local_file = [](nbd_handle*, bool) { return 0; };
  nbd.set_pread_initialize = [](nbd_handle*, bool) { return 0; };
  nbd.set_full_info = [](nbd_handle*, bool) { return 0; };
  nbd.set_debug = [](nbd_handle*, bool) { return 0; };
  nbd.clear_debug_callback = [](nbd_handle*) { return 0; };
  nbd.set_debug_callback = [](nbd_handle*, nbd_debug_callback) { return 0; };
  nbd.add_meta_context = [](nbd_handle*, const char*) { return 0; };
  nbd.aio_connect_uri = [](nbd_handle*, const char*) { return 0; };
  nbd.aio_is_ready = [](nbd_handle*) { return 1; };
  nbd.aio_is_dead = [](nbd_handle*) { return 0; };
  nbd.aio_is_closed = [](nbd_handle*) { return 0; };
  nbd.aio_disconnect = [](nbd_handle*, uint32_t) { return 0; };
  // Every answer is there at once: nothing is ever waited for.
  nbd.aio_get_fd = [](nbd_handle*) { return -1; };
  nbd.get_size = [](nbd_handle*) { return take<int64_t>(); };
  nbd.get_block_size = [](nbd_handle*, int) { return take<int64_t>(); };
  nbd.can_multi_conn = [](nbd_handle*) { return take<uint8_t>() % 3 - 1; };
  nbd.is_read_only = nbd.can_multi_conn;
  nbd.can_trim = nbd.can_multi_conn;
  nbd.can_zero = nbd.can_multi_conn;
  nbd.can_flush = nbd.can_multi_conn;
  nbd.can_fua = nbd.can_multi_conn;
  nbd.is_rotational = nbd.can_multi_conn;
  nbd.can_df = nbd.can_multi_conn;
  nbd.can_cache = nbd.can_multi_conn;
  nbd.can_fast_zero = nbd.can_multi_conn;
  // As libnbd gives them: to be freed by the caller.
  nbd.get_canonical_export_name = [](nbd_handle*) -> char* {
    return take<uint8_t>() % 2 ? strdup("disk") : nullptr;
  };
  nbd.get_export_description = nbd.get_canonical_export_name;
  nbd.can_meta_context = [](nbd_handle*, const char*) { return take<uint8_t>() % 3 - 1; };
  nbd.aio_block_status = [](nbd_handle*, uint64_t, uint64_t, nbd_extent_callback extent,
                            nbd_completion_callback completion,
                            uint32_t) { return answer(extent, completion); };
  return nbd;
}

void require(bool holds) {
  if (!holds) abort();
}

}  // namespace

namespace qb {

const NbdLibrary& nbd_library() {
  static const NbdLibrary nbd = fake();
  return nbd;
}

}  // namespace qb

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  input = data;
  left = size;
  try {
    NbdStatus status({.uri = "nbd://server"}, kContexts, std::make_shared<NbdCancel>());
    const NbdExport& info = status.info();
    require(info.block_min > 0 && info.block_max > 0);
    require(info.block_max <= 32 << 20 && info.contexts.size() == kContexts.size());
    do {
      const auto runs = status.status(kStart, take<uint64_t>());
      require(runs.size() == kContexts.size());
    } while (left > 0);
  } catch (const Error&) {
    // Refused, as a server may be.
  }
  return 0;
}
