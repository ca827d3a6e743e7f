// Arguments of JavaScript as C++ values, and the tag by which a handle of ours is known.
#pragma once

#include <napi.h>

#include <cstdint>
#include <string>

namespace qb {

// A whole number that the caller has checked.
uint64_t whole(const Napi::Value& value);

// Properties of an object. Throw Napi::Error if one is missing or of another type.
uint64_t number(const Napi::Object& object, const char* name);
std::string text(const Napi::Object& object, const char* name);
// False if it is missing.
bool flag(const Napi::Object& object, const char* name);
Napi::Object object(const Napi::Object& object, const char* name);

// The bytes of a Buffer.
std::string bytes(const Napi::Object& object, const char* name);

// As<> takes any typed array, and would read and write past the end of one of smaller elements.
Napi::Float64Array doubles(const Napi::Value& value);

// Distinguishes an External of ours from those of other addons, and of another copy of this one
// in the same process, which may be of another version. `kind`: of the External.
napi_type_tag handle_tag(uint64_t kind);

}  // namespace qb
