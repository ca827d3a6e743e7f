// What a copy is started with, out of the object that JavaScript gave (CopySpec in lib/native.ts).
#pragma once

#include <napi.h>

#include "copy/job.h"

namespace qb {

// Throws Napi::TypeError for a handle that is none.
CopySpec copy_spec_of(const Napi::Object& options);

}  // namespace qb
