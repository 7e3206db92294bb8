// A benchmarker for .ptl files: loads one with libtorch's mobile loader, runs it many times, says how long it takes.
//
//   .ptl --load--> module --get_all_bundled_inputs--> inputs --forward, warmup + iter times--> microseconds
//
// Flags and output are among those of PyTorch's speed_benchmark_torch, so that what is learned here holds on a phone,
// and one parser reads both. The last line is our own: every iteration (a mean alone hides the spread), loading, the
// first run, the peak of memory, and CPU time over wall time ("cores": below 1 on one thread, others had the core).
//
// Compiled on demand by minst.mobile.lite.compile_benchmark. Lesson: notebooks/08_on_device_latency.ipynb

#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Flags.h>
#include <sys/resource.h>
#include <torch/csrc/jit/mobile/import.h>

#include <chrono>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

C10_DECLARE_int(pthreadpool_size);  // libtorch's own: read once, when its pool of threads (XNNPACK's) is made

using Clock = std::chrono::steady_clock;

[[noreturn]] void fail(const std::string& what) { throw std::runtime_error(what); }

double microseconds(Clock::time_point start) {
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

// libtorch's messages go on with traces, hints and blank lines
std::string first_line(const c10::Error& error) {
  const std::string text = error.what_without_backtrace();
  return text.substr(0, std::min(text.find('\n'), text.find(". This is an internal miniz")));
}

// flag -> value, and what stands here is the default
std::map<std::string, std::string> flags = {{"model", ""},        {"use_bundled_input", "0"}, {"warmup", "0"},
                                            {"iter", "10"},       {"report_pep", "false"},    {"print_output", "false"},
                                            {"pthreadpool_size", "1"}};

void parse_flags(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const size_t equals = word.find('=');
    const auto flag = flags.find(word.substr(0, 2) == "--" && equals != std::string::npos ? word.substr(2, equals - 2) : "");
    if (flag == flags.end()) {
      std::string known;
      for (const auto& each : flags) known += " --" + each.first + "=";
      fail("unknown flag " + word + "; there are" + known);
    }
    flag->second = word.substr(equals + 1);
  }
}

int64_t whole(const std::string& flag, int64_t least) {
  const std::string& text = flags[flag];
  char* end = nullptr;
  const long long value = std::strtoll(text.c_str(), &end, 10);
  if (text.empty() || *end || value < least || value > INT32_MAX)
    fail("--" + flag + ": '" + text + "' must be a whole number of at least " + std::to_string(least));
  return value;
}

torch::jit::mobile::Module load(const std::string& path) {
  if (!std::ifstream(path).good()) fail("--model: cannot read '" + path + "'");
  try {
    return torch::jit::_load_for_mobile(path);
  } catch (const c10::Error& error) {
    fail("--model is no model of the lite interpreter: " + first_line(error));
  }
}

std::vector<c10::IValue> bundled(torch::jit::mobile::Module& module, int64_t index) {
  const auto method = module.find_method("get_all_bundled_inputs");
  if (!method) fail("the model has no bundled inputs; `minst export --format lite` writes one that has");
  const auto all = (*method)({}).toList();
  if (index >= static_cast<int64_t>(all.size()))
    fail("--use_bundled_input: the model has " + std::to_string(all.size()) + ", from 0");
  return all.get(index).toTupleRef().elements().vec();
}

double peak_bytes() {
#ifdef __linux__  // not ru_maxrss: there it starts with the size of the process that started this one
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.rfind("VmHWM:", 0) == 0) return 1024 * std::stod(line.substr(6));
  return 0;
#else
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss);  // bytes on macOS
#endif
}

void benchmark() {
  const int64_t warmup = whole("warmup", 0), iterations = whole("iter", 1);
  const int64_t index = whole("use_bundled_input", 0);
  // both pools, XNNPACK's and OpenMP's: one thread must be one core
  FLAGS_pthreadpool_size = static_cast<int>(whole("pthreadpool_size", 1));
  at::set_num_threads(FLAGS_pthreadpool_size);
  const c10::InferenceMode no_gradients;
  auto start = Clock::now();
  auto module = load(flags["model"]);
  const double load_us = microseconds(start);
  const auto inputs = bundled(module, index);

  double first_us = -1;  // the very first run packs weights and finds its memory, whichever run that is
  const auto run = [&] {
    const auto begin = Clock::now();
    const auto output = module.forward(inputs);
    const double us = microseconds(begin);
    if (first_us < 0) first_us = us;
    return std::make_pair(us, output);
  };
  if (flags["print_output"] == "true") std::cout << run().second << std::endl;
  std::cout << "Starting benchmark.\nRunning warmup runs." << std::endl;
  for (int64_t i = 0; i < warmup; ++i) run();
  std::cout << "Main runs." << std::endl;
  std::vector<double> times;
  const auto cpu = std::clock();
  start = Clock::now();
  for (int64_t i = 0; i < iterations; ++i) times.push_back(run().first);
  const double wall_us = microseconds(start), cpu_us = 1e6 * static_cast<double>(std::clock() - cpu) / CLOCKS_PER_SEC;
  if (flags["report_pep"] == "true")
    for (double us : times)
      std::cout << R"(PyTorchObserver {"type": "NET", "unit": "us", "metric": "latency", "value": ")"
                << static_cast<int64_t>(us) << "\"}\n";
  const double mean_us = wall_us / static_cast<double>(iterations);
  std::cout << "Main run finished. Microseconds per iter: " << mean_us << ". Iters per second: " << 1e6 / mean_us
            << std::endl;

  std::cout << std::fixed << std::setprecision(3);
  std::cout << R"(minst: {"load_us": )" << load_us << R"(, "first_run_us": )" << first_us;
  std::cout << R"(, "peak_bytes": )" << peak_bytes() << R"(, "cores": )" << cpu_us / wall_us << R"(, "iterations_us": [)";
  for (size_t i = 0; i < times.size(); ++i) std::cout << (i ? ", " : "") << times[i];
  std::cout << "]}" << std::endl;
}

int main(int argc, char** argv) {
  try {
    parse_flags(argc, argv);
    benchmark();
    return 0;
  } catch (const c10::Error& error) {
    std::cerr << "lite_benchmark: " << first_line(error) << std::endl;
  } catch (const std::exception& error) {
    std::cerr << "lite_benchmark: " << error.what() << std::endl;
  }
  return 1;
}
