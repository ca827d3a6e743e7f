// nbdkit as the server.
#pragma once

#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

namespace qb::test {

// `nbdkit --filter=log ARGUMENTS…` on a Unix socket in a directory of its own; ends with its
// object.
class Nbdkit {
 public:
  explicit Nbdkit(std::vector<std::string> arguments) : arguments_(std::move(arguments)) {
    directory_ = (std::filesystem::temp_directory_path() / "nbd-XXXXXX").string();
    REQUIRE(mkdtemp(directory_.data()) != nullptr);
    start();
  }
  ~Nbdkit() {
    kill();
    std::filesystem::remove_all(directory_);
  }
  Nbdkit(const Nbdkit&) = delete;
  Nbdkit& operator=(const Nbdkit&) = delete;

  std::string uri() const { return "nbd+unix:///?socket=" + path("socket"); }

  // Starts it again, with empty memory.
  void start() {
    for (const char* old : {"socket", "pid"}) std::filesystem::remove(path(old));
    std::vector<std::string> words = {"nbdkit",       "-f", "--exit-with-parent", "-U",
                                      path("socket"), "-P", path("pid"),          "--filter=log"};
    words.insert(words.end(), arguments_.begin(), arguments_.end());
    words.push_back("logfile=" + path("log"));
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    pid_ = fork();
    REQUIRE(pid_ >= 0);
    if (pid_ == 0) {
      execvp(argv[0], argv.data());
      _exit(127);
    }
    while (!std::filesystem::exists(path("pid"))) {
      REQUIRE(waitpid(pid_, nullptr, WNOHANG) == 0);
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }

  // Before start(): one more argument from then on.
  void add(const std::string& argument) { arguments_.insert(arguments_.begin(), argument); }
  // It answers nobody, but the kernel still lets clients connect.
  void pause() { ::kill(pid_, SIGSTOP); }
  void resume() { ::kill(pid_, SIGCONT); }

  void kill() {
    if (pid_ == -1) return;
    ::kill(pid_, SIGKILL);
    wait();
  }
  // Until it has ended by itself.
  void wait() {
    waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }

  // The details of each request of a name, the id left out: "offset=0x0 count=0x1000 fua=0".
  std::vector<std::string> asked(const std::string& name) const {
    std::vector<std::string> found;
    std::ifstream log(path("log"));
    for (std::string line; std::getline(log, line);) {
      // The answers have "...Write".
      size_t at = line.find(" " + name + " ");
      if (at == std::string::npos) continue;
      std::string details = line.substr(at + name.size() + 2);
      if (details.starts_with("id=")) details.erase(0, details.find(' ') + 1);
      found.push_back(details.substr(0, details.find(" ...")));
    }
    return found;
  }

 private:
  std::string path(const char* name) const { return directory_ + "/" + name; }

  std::vector<std::string> arguments_;
  std::string directory_;
  pid_t pid_ = -1;
};

}  // namespace qb::test
