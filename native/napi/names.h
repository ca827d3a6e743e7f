// System calls on names and on the layers below a device, which Node lacks.
#pragma once

#include <napi.h>

namespace qb {

// Adds readLink, exchangeNames and loopBacking.
void export_names(Napi::Env env, Napi::Object exports);

}  // namespace qb
