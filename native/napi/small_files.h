// Reading many small files at once.
#pragma once

#include <napi.h>

namespace qb {

// Adds readFiles.
void export_small_files(Napi::Env env, Napi::Object exports);

}  // namespace qb
