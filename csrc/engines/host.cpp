#include "engines/host.h"

#include "base/error.h"
#include "engines/engine.h"

namespace onceover {
namespace {

class Host final : public Engine {
 public:
  explicit Host(HostNetwork network) : network_(network) {}

  void bind(float* input, float* output) override {
    input_ = input;
    output_ = output;
  }

  void run() override {
    if (network_.run == nullptr) {
      fail(Status::kUsage,
           "engine host: this session was given no function that runs the network; give one, or prepare the image, run "
           "the network and hand its features over");
    }
    const int32_t code = network_.run(network_.context, input_, output_);
    if (code != 0) fail(Status::kEngine, "engine host: the application's network failed with code %d", code);
  }

  std::string version() const override { return "host"; }

 private:
  HostNetwork network_;
  const float* input_ = nullptr;
  float* output_ = nullptr;
};

}  // namespace

std::unique_ptr<Engine> create_host(const EngineOptions& options, GraphView, const GraphShapes&) {
  if (!options.device.empty() || !options.options.empty() || !options.cache_dir.empty() ||
      !options.library_path.empty()) {
    fail(Status::kUsage, "engine host: takes no library, device, options or cache; they are the application's own");
  }
  return std::make_unique<Host>(options.host);
}

EngineDescription describe_host(const std::string&) { return {"host", {}}; }

}  // namespace onceover
