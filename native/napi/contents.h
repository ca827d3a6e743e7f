// Work on bytes that a server does piece by piece: decompressing, hashing.
#pragma once

#include <napi.h>

namespace qb {

// Adds decompressCluster and blake2bOf.
void export_contents(Napi::Env env, Napi::Object exports);

}  // namespace qb
