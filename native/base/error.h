// One error type for everything native: an errno and the failed operation.
#pragma once

#include <cerrno>
#include <stdexcept>
#include <string>

namespace qb {

// Thrown by constructors and checks; carried as a value across threads (std::exception_ptr or a
// copy). `errnum` is a positive errno, `context` names the operation ("write at 65536").
class Error : public std::runtime_error {
 public:
  Error(int errnum, const std::string& context);
  int errnum() const { return errnum_; }
  const std::string& context() const { return context_; }

 private:
  int errnum_;
  std::string context_;
};

// The symbolic name of an errno ("ENOSPC"), or "E<number>".
std::string errno_name(int errnum);

// Throws Error(errno, context) when `ok` is false.
void check_errno(bool ok, const char* context);

}  // namespace qb
