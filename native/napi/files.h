// System calls on files that Node lacks.
#pragma once

#include <napi.h>

namespace qb {

// Adds fileExtents, deviceSize, lockFile, lockByte, linkFile and exitNow.
void export_files(Napi::Env env, Napi::Object exports);

}  // namespace qb
