// The planning side's connection to an NBD server.
#pragma once

#include <napi.h>

namespace qb {

// Adds nbdOpen, nbdInfo, nbdStatus and nbdClose.
void export_nbd(Napi::Env env, Napi::Object exports);

}  // namespace qb
