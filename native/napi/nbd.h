// The planning side's connection to an NBD server.
#pragma once

#include <napi.h>

#include <memory>

#include "source/nbd_connection.h"

namespace qb {

// Adds nbdOpen, nbdConnect, nbdStatus, nbdTrim, nbdRead, nbdWrite, nbdZero, nbdFlush and nbdClose.
void export_nbd(Napi::Env env, Napi::Object exports);

// The connection of a handle from nbdOpen, which counts as closed from then on. Throws
// Napi::TypeError if it is something else, or was closed before; an error with code EBADF if it is
// not connected, or a call is under way.
std::unique_ptr<NbdConnection> take_nbd_connection(const Napi::Value& handle);

}  // namespace qb
