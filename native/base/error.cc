#include "base/error.h"

#include <cstring>

namespace qb {

Error::Error(int errnum, const std::string& context)
    : std::runtime_error(context + ": " + strerror(errnum)), errnum_(errnum), context_(context) {}

std::string errno_name(int errnum) {
  const char* name = strerrorname_np(errnum);
  return name ? name : "E" + std::to_string(errnum);
}

void check_errno(bool ok, const char* context) {
  if (!ok) throw Error(errno, context);
}

}  // namespace qb
