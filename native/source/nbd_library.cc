#include "source/nbd_library.h"

#include <dlfcn.h>

#include <cerrno>

#include "base/error.h"

namespace qb {

namespace {

void* open_library() {
  void* library = dlopen("libnbd.so.0", RTLD_NOW | RTLD_LOCAL);
  if (!library) throw Error(ELIBACC, "load libnbd.so.0");
  return library;
}

template <typename Function>
void find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  if (!function) throw Error(ELIBBAD, std::string("find ") + name + " in libnbd.so.0");
}

NbdLibrary load() {
  void* library = open_library();
  NbdLibrary nbd;
#define QB_FIND(name) find(library, "nbd_" #name, nbd.name)
  QB_FIND(create);
  QB_FIND(close);
  QB_FIND(get_error);
  QB_FIND(get_errno);
  QB_FIND(set_uri_allow_local_file);
  QB_FIND(set_pread_initialize);
  QB_FIND(set_full_info);
  QB_FIND(set_debug);
  QB_FIND(set_debug_callback);
  QB_FIND(clear_debug_callback);
  QB_FIND(add_meta_context);
  QB_FIND(set_opt_mode);
  QB_FIND(aio_is_negotiating);
  QB_FIND(aio_opt_list_meta_context);
  QB_FIND(aio_opt_go);
  QB_FIND(aio_connect_uri);
  QB_FIND(aio_is_ready);
  QB_FIND(aio_is_dead);
  QB_FIND(aio_is_closed);
  QB_FIND(aio_get_fd);
  QB_FIND(aio_get_direction);
  QB_FIND(aio_notify_read);
  QB_FIND(aio_notify_write);
  QB_FIND(aio_disconnect);
  QB_FIND(aio_pread_structured);
  QB_FIND(aio_pwrite);
  QB_FIND(aio_zero);
  QB_FIND(aio_trim);
  QB_FIND(aio_flush);
  QB_FIND(aio_block_status);
  QB_FIND(get_size);
  QB_FIND(get_block_size);
  QB_FIND(can_multi_conn);
  QB_FIND(can_meta_context);
  QB_FIND(is_read_only);
  QB_FIND(can_trim);
  QB_FIND(can_zero);
  QB_FIND(can_flush);
  QB_FIND(can_fua);
  QB_FIND(can_cache);
  QB_FIND(can_df);
  QB_FIND(can_fast_zero);
  QB_FIND(is_rotational);
  QB_FIND(get_canonical_export_name);
  QB_FIND(get_export_description);
#undef QB_FIND
  return nbd;
}

}  // namespace

const NbdLibrary& nbd_library() {
  static const NbdLibrary nbd = load();
  return nbd;
}

}  // namespace qb
