// qemu-img as the judge.
#pragma once

#include <doctest/doctest.h>
#include <stdio.h>
#include <sys/wait.h>

#include <string>

namespace qb::test {

struct Ran {
  int status = -1;  // of the exit, or -1
  std::string output;
};

// Runs qemu-img with `arguments`, which the shell splits.
inline Ran qemu_img(const std::string& arguments) {
  Ran ran;
  FILE* pipe = popen(("qemu-img " + arguments + " 2>&1").c_str(), "r");
  REQUIRE(pipe != nullptr);
  char buffer[4096];
  for (size_t n; (n = fread(buffer, 1, sizeof buffer, pipe)) > 0;) ran.output.append(buffer, n);
  int status = pclose(pipe);
  if (WIFEXITED(status)) ran.status = WEXITSTATUS(status);
  return ran;
}

}  // namespace qb::test
