// A copy job as JavaScript holds it: promises in, thread out.
#pragma once

#include <napi.h>

#include <memory>

namespace qb {

// Adds copyStart, copyPush, copyFinish, copyCancel and copyProgress.
void export_copy(Napi::Env env, Napi::Object exports);

}  // namespace qb
