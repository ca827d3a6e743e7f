// A comparison as JavaScript holds it.
#pragma once

#include <napi.h>

namespace qb {

// Adds compareStart, comparePush, compareFinish, compareEvents and compareCancel.
void export_compare(Napi::Env env, Napi::Object exports);

}  // namespace qb
