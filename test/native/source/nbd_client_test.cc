#include "source/nbd_client.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <memory>
#include <semaphore>
#include <thread>

#include "source/nbd_status.h"
#include "source/nbdkit.h"
#include "support/bytes.h"

using namespace qb;
using namespace qb::test;

namespace {

constexpr uint64_t kMiB = 1 << 20;
using Lines = std::vector<std::string>;

NbdClientSpec spec_of(const Nbdkit& server, uint64_t size) {
  return {.address = {server.uri()}, .size = size, .retries = 0};
}

// A client whose transfers can be waited for.
class Client {
 public:
  explicit Client(const NbdClientSpec& spec)
      : client_(std::make_unique<NbdClient>(spec, [this] { finished_.release(); })) {}

  void submit(Transfer& transfer) { client_->submit(&transfer); }
  // Until all that was submitted is done.
  void wait() {
    std::vector<Transfer*> done;
    while (client_->in_flight() > 0) {
      finished_.acquire();
      client_->collect(done);
    }
  }
  // One transfer from its start to its end. Returns the error.
  int run(Transfer transfer) {
    submit(transfer);
    wait();
    CHECK(transfer.done == (transfer.error == 0 ? transfer.length : 0));
    return transfer.error;
  }
  int write(uint64_t offset, Bytes& bytes) {
    return run({.op = Op::kWrite, .offset = offset, .iov = {iovec_of(bytes)}});
  }
  int read(uint64_t offset, Bytes& bytes) {
    return run({.op = Op::kRead, .offset = offset, .iov = {iovec_of(bytes)}});
  }
  int zero(uint64_t offset, uint64_t length) {
    return run({.op = Op::kZero, .offset = offset, .length = length});
  }
  int sync() { return run({.op = Op::kSync}); }
  std::string failure() const { return client_->failure(); }

 private:
  std::counting_semaphore<> finished_{0};
  std::unique_ptr<NbdClient> client_;
};

}  // namespace

TEST_CASE("NbdClient: writes in parts of a payload, and reads them back") {
  const Nbdkit server({"memory", "1M"});
  NbdClientSpec spec = spec_of(server, kMiB);
  spec.connections = 3;
  spec.requests = 2;
  spec.block_max = 65536;
  Client client(spec);
  Bytes written = random_bytes(1000000, 1), read(1000000);
  CHECK(client.write(4096, written) == 0);
  CHECK(client.read(4096, read) == 0);
  CHECK(read == written);
  CHECK(server.asked("Write").size() == 16);
  CHECK(server.asked("Read").size() == 16);
  // All are begun with the first request, whether or not they came in time to share the work.
  while (server.asked("Connect").size() < 3) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

TEST_CASE("NbdClient: zeroes in parts, with holes unless told not to") {
  for (const bool no_hole : {false, true}) {
    const Nbdkit server({"memory", "1G"});
    NbdClientSpec spec = spec_of(server, 1024 * kMiB);
    spec.no_hole = no_hole;
    Client client(spec);
    Bytes bytes = random_bytes(8192, 1);
    CHECK(client.write(0, bytes) == 0);
    CHECK(client.zero(4096, 300 * kMiB) == 0);
    CHECK(client.read(0, bytes) == 0);
    const Bytes zeroes(4096);
    CHECK(Bytes(bytes.begin() + 4096, bytes.end()) == zeroes);
    CHECK(Bytes(bytes.begin(), bytes.begin() + 4096) != zeroes);
    const std::string flags = no_hole ? " trim=0 fua=0 fast=0" : " trim=1 fua=0 fast=0";
    Lines asked = server.asked("Zero");
    // Of requests that are in flight at once nbdkit takes any first.
    std::sort(asked.begin(), asked.end());
    CHECK(asked == Lines{"offset=0x1000 count=0x7fff000" + flags,
                         "offset=0x10000000 count=0x2c01000" + flags,
                         "offset=0x8000000 count=0x8000000" + flags});
  }
}

TEST_CASE("NbdClient: one flush, where the server can") {
  const Nbdkit server({"memory", "1M"});
  NbdClientSpec spec = spec_of(server, kMiB);
  spec.connections = 2;
  Client client(spec);
  CHECK(client.sync() == 0);
  CHECK(server.asked("Flush").size() == 1);

  const Nbdkit other({"eval", "get_size=echo 1M", "pread=exit 1"});
  Client without(spec_of(other, kMiB));
  CHECK(without.sync() == 0);
  CHECK(other.asked("Flush").empty());
}

TEST_CASE("NbdClient: without multi-conn each connection that wrote is flushed") {
  const Nbdkit server({"--filter=multi-conn", "memory", "1M", "multi-conn-mode=disable"});
  NbdClientSpec spec = spec_of(server, kMiB);
  spec.connections = 3;
  spec.requests = 1;
  Client client(spec);
  Bytes bytes(4096, 1);
  // All three connections are there once each has a write of its own.
  while (server.asked("Connect").size() < 3) {
    std::vector<Transfer> writes(16, {.op = Op::kWrite, .iov = {iovec_of(bytes)}});
    for (Transfer& write : writes) client.submit(write);
    client.wait();
  }
  std::vector<Transfer> writes(64, {.op = Op::kWrite, .iov = {iovec_of(bytes)}});
  for (Transfer& write : writes) client.submit(write);
  client.wait();
  CHECK(client.sync() == 0);
  CHECK(server.asked("Flush").size() == 3);
  // What was not written to since has nothing to flush; one is asked all the same.
  CHECK(client.sync() == 0);
  CHECK(server.asked("Flush").size() == 4);
}

TEST_CASE("NbdClient: goes on with the connections that the server takes") {
  const Nbdkit server({"--filter=limit", "memory", "1M", "limit=2"});
  NbdClientSpec spec = spec_of(server, kMiB);
  spec.connections = 4;
  for (const unsigned retries : {0u, 2u}) {
    spec.retries = retries;
    Client client(spec);
    Bytes written = random_bytes(500000, 1), read(500000);
    for (int i = 0; i < 20; i++) {
      CHECK(client.write(4096, written) == 0);
      CHECK(client.read(4096, read) == 0);
    }
    CHECK(read == written);
    CHECK(client.failure().empty());
  }
}

TEST_CASE("NbdClient: ends while it connects to a server that is silent") {
  Nbdkit server({"memory", "1M"});
  server.pause();
  NbdClientSpec spec = spec_of(server, kMiB);
  spec.connections = 4;
  spec.retries = 6;
  {
    Client client(spec);
    Bytes bytes(4096);
    Transfer read{.op = Op::kRead, .iov = {iovec_of(bytes)}};
    client.submit(read);
  }
  server.resume();
}

TEST_CASE("NbdClient: another export of the same size is none to go on with") {
  Nbdkit server({"memory", "1M"});
  NbdClientSpec spec = spec_of(server, kMiB);
  NbdStatus status(spec.address, {}, std::make_shared<NbdCancel>());
  spec.fingerprint = status.info().fingerprint;
  spec.retries = 6;
  Client client(spec);
  Bytes bytes(4096);
  REQUIRE(client.read(0, bytes) == 0);
  server.kill();
  server.add("-r");
  server.start();
  CHECK(client.read(0, bytes) == ESTALE);
  CHECK(client.failure() == "the export has another read-only now");
}

TEST_CASE("NbdClient: what the server refuses fails by itself") {
  const Nbdkit server({"--filter=error", "memory", "1M", "error-pwrite-rate=100%",
                       "error-pwrite=ENOSPC", "error-zero-rate=100%", "error-zero=EIO"});
  Client client(spec_of(server, kMiB));
  Bytes bytes(4096, 1);
  CHECK(client.write(0, bytes) == ENOSPC);
  CHECK(client.zero(0, 4096) == EIO);
  CHECK(client.read(0, bytes) == 0);
  CHECK(client.failure().empty());
}

TEST_CASE("NbdClient: a read-only export") {
  const Nbdkit server({"-r", "memory", "1M"});
  Client client(spec_of(server, kMiB));
  Bytes bytes(4096, 1);
  CHECK(client.write(0, bytes) == EPERM);
  CHECK(client.failure().find("does not support write") != std::string::npos);
}

TEST_CASE("NbdClient: without retries a lost server stays lost, though it comes back") {
  // Reads never come back.
  Nbdkit server({"--filter=delay", "memory", "1M", "rdelay=3600"});
  NbdClientSpec spec = spec_of(server, kMiB);
  spec.connections = 2;
  Client client(spec);
  Bytes bytes(4096, 1), others(4096);
  REQUIRE(client.write(0, bytes) == 0);
  Transfer first{.op = Op::kRead, .iov = {iovec_of(bytes)}};
  Transfer second{.op = Op::kRead, .offset = 8192, .iov = {iovec_of(others)}};
  client.submit(first);
  client.submit(second);
  // Requests that it has not read when it ends would reset the connection.
  while (server.asked("Read").size() < 2) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  server.kill();
  client.wait();
  CHECK(first.error == ENOTCONN);
  CHECK(second.error == ENOTCONN);
  CHECK(client.failure() == "connection to the NBD server");
  server.start();
  CHECK(client.write(0, bytes) == ENOTCONN);
  CHECK(client.zero(0, 4096) == ENOTCONN);
  CHECK(client.sync() == ENOTCONN);
}

TEST_CASE("NbdClient: a server found gone while sending was once waited for until the timeout") {
  Nbdkit server({"memory", "1M"});
  NbdClientSpec spec = spec_of(server, kMiB);
  spec.requests = 1;
  Bytes bytes(4096, 1);
  std::vector<Transfer> reads(3, {.op = Op::kRead, .iov = {iovec_of(bytes)}});
  std::counting_semaphore<> finished{0};
  std::unique_ptr<NbdClient> client;
  int count = 0;
  // Called by the client's thread, which therefore does not poll: of the last two, both taken by
  // then, one was answered, and the server goes before the other is sent.
  auto on_finished = [&] {
    count++;
    if (count == 1) {
      client->submit(&reads[1]);
      client->submit(&reads[2]);
    }
    if (count == 2) server.kill();
    finished.release();
  };
  client = std::make_unique<NbdClient>(spec, on_finished);
  client->submit(&reads[0]);
  for (size_t i = 0; i < reads.size(); i++) finished.acquire();
  CHECK(reads[1].error == 0);
  CHECK(reads[2].error == ENOTCONN);
}

TEST_CASE("NbdClient: lost while idle, the next transfer is told") {
  Nbdkit server({"memory", "1M"});
  Client client(spec_of(server, kMiB));
  Bytes bytes(4096, 1);
  REQUIRE(client.write(0, bytes) == 0);
  server.kill();
  server.start();
  // With nothing but memory, the write is gone: a flush of the new server would say it is safe.
  CHECK(client.sync() == ENOTCONN);
  CHECK(client.failure() == "connection to the NBD server");
}

TEST_CASE("NbdClient: with retries it goes on with the server that comes back") {
  Nbdkit server({"memory", "1M"});
  NbdClientSpec spec = spec_of(server, kMiB);
  spec.retries = 6;
  Client client(spec);
  Bytes bytes(4096, 1);
  REQUIRE(client.write(0, bytes) == 0);
  server.kill();
  server.start();
  CHECK(client.read(0, bytes) == 0);
  CHECK(bytes == Bytes(4096, 0));
}

TEST_CASE("NbdClient: takes over a connection, and really ends it") {
  // It ends when its only client goes, and would let no second one in.
  Nbdkit server({"--filter=exitlast", "--filter=limit", "memory", "1M", "limit=1"});
  const NbdAddress address{server.uri()};
  NbdStatus status(address, {"base:allocation"}, std::make_shared<NbdCancel>());
  CHECK(status.status(0, kMiB)[0][0].length == kMiB);
  NbdClientSpec spec = spec_of(server, kMiB);
  spec.adopted = std::make_shared<std::unique_ptr<NbdConnection>>(status.release_connection());
  {
    Client client(spec);
    Bytes bytes = random_bytes(100000, 1), read(100000);
    CHECK(client.write(0, bytes) == 0);
    CHECK(client.read(0, read) == 0);
    CHECK(read == bytes);
    CHECK(server.asked("Connect").size() == 1);
  }
  // Though the spec is still held.
  server.wait();
}
