// libnbd, loaded when the first NBD source is opened: whoever only works on files needs no libnbd,
// and its static library cannot be linked into an addon.
#pragma once

#include <libnbd.h>

namespace qb {

// The functions used. Errors are to be read with get_error() on the thread that called.
struct NbdLibrary {
  decltype(&nbd_create) create;
  decltype(&nbd_close) close;
  decltype(&nbd_get_error) get_error;
  decltype(&nbd_get_errno) get_errno;
  decltype(&nbd_set_uri_allow_local_file) set_uri_allow_local_file;
  decltype(&nbd_set_pread_initialize) set_pread_initialize;
  decltype(&nbd_set_full_info) set_full_info;
  decltype(&nbd_set_debug) set_debug;
  decltype(&nbd_set_debug_callback) set_debug_callback;
  decltype(&nbd_clear_debug_callback) clear_debug_callback;
  decltype(&nbd_add_meta_context) add_meta_context;
  decltype(&nbd_set_opt_mode) set_opt_mode;
  decltype(&nbd_aio_is_negotiating) aio_is_negotiating;
  decltype(&nbd_aio_opt_list_meta_context) aio_opt_list_meta_context;
  decltype(&nbd_aio_opt_go) aio_opt_go;
  decltype(&nbd_aio_connect_uri) aio_connect_uri;
  decltype(&nbd_aio_is_ready) aio_is_ready;
  decltype(&nbd_aio_is_dead) aio_is_dead;
  decltype(&nbd_aio_is_closed) aio_is_closed;
  decltype(&nbd_aio_get_fd) aio_get_fd;
  decltype(&nbd_aio_get_direction) aio_get_direction;
  decltype(&nbd_aio_notify_read) aio_notify_read;
  decltype(&nbd_aio_notify_write) aio_notify_write;
  decltype(&nbd_aio_disconnect) aio_disconnect;
  decltype(&nbd_aio_pread_structured) aio_pread_structured;
  decltype(&nbd_aio_pwrite) aio_pwrite;
  decltype(&nbd_aio_zero) aio_zero;
  decltype(&nbd_aio_trim) aio_trim;
  decltype(&nbd_aio_flush) aio_flush;
  decltype(&nbd_aio_block_status) aio_block_status;
  decltype(&nbd_get_size) get_size;
  decltype(&nbd_get_block_size) get_block_size;
  decltype(&nbd_can_multi_conn) can_multi_conn;
  decltype(&nbd_can_meta_context) can_meta_context;
  decltype(&nbd_is_read_only) is_read_only;
  decltype(&nbd_can_trim) can_trim;
  decltype(&nbd_can_zero) can_zero;
  decltype(&nbd_can_flush) can_flush;
  decltype(&nbd_can_fua) can_fua;
  decltype(&nbd_can_cache) can_cache;
  decltype(&nbd_can_df) can_df;
  decltype(&nbd_can_fast_zero) can_fast_zero;
  decltype(&nbd_is_rotational) is_rotational;
  decltype(&nbd_get_canonical_export_name) get_canonical_export_name;
  decltype(&nbd_get_export_description) get_export_description;
};

// Throws Error(ELIBACC) if there is no libnbd. Thread-safe. Never unloaded: the library keeps a
// thread-local key.
const NbdLibrary& nbd_library();

}  // namespace qb
