// Parameters of a copy or a comparison, from the object that JavaScript gave (CopySpec and
// CompareSpec in lib/native.ts).
#pragma once

#include <napi.h>

#include "compare/spec.h"
#include "copy/spec.h"

namespace qb {

// All of these throw Napi::TypeError for a handle that is none.
CopySpec copy_spec_of(const Napi::Object& options);
CompareSpec compare_spec_of(const Napi::Object& options);

}  // namespace qb
