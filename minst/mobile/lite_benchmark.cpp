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
#include <ctime>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

C10_DECLARE_int(pthreadpool_size);  // libtorch's own: read once, when its pool of threads (XNNPACK's) is made
C10_DEFINE_string(model, "", "a .ptl file with bundled inputs");
C10_DEFINE_int(use_bundled_input, 0, "which of them");
C10_DEFINE_int(warmup, 0, "runs not counted");
C10_DEFINE_int(iter, 10, "runs measured");
C10_DEFINE_bool(report_pep, false, "a line for every run");
C10_DEFINE_bool(print_output, false, "print what the model says");

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

torch::jit::mobile::Module load(const std::string& path) {
  if (!std::ifstream(path).good()) fail("--model: cannot read '" + path + "'");
  try {
    return torch::jit::_load_for_mobile(path);
  } catch (const c10::Error& error) {
    fail("--model is no model of the lite interpreter: " + first_line(error));
  }
}

std::vector<c10::IValue> bundled(torch::jit::mobile::Module& module, size_t index) {
  const auto method = module.find_method("get_all_bundled_inputs");
  if (!method) fail("the model has no bundled inputs; `minst export --format lite` writes one that has");
  const auto all = (*method)({}).toList();
  if (index >= all.size())
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
  // both pools, XNNPACK's and OpenMP's: one thread must be one core
  at::set_num_threads(FLAGS_pthreadpool_size);
  const c10::InferenceMode no_gradients;
  auto start = Clock::now();
  auto module = load(FLAGS_model);
  const double load_us = microseconds(start);
  const auto inputs = bundled(module, FLAGS_use_bundled_input);

  double first_us = -1;  // the very first run packs weights and finds its memory, whichever run that is
  const auto run = [&] {
    const auto begin = Clock::now();
    const auto output = module.forward(inputs);
    const double us = microseconds(begin);
    if (first_us < 0) first_us = us;
    return std::make_pair(us, output);
  };
  if (FLAGS_print_output) std::cout << run().second << std::endl;
  std::cout << "Starting benchmark.\nRunning warmup runs." << std::endl;
  for (int64_t i = 0; i < FLAGS_warmup; ++i) run();
  std::cout << "Main runs." << std::endl;
  std::vector<double> times;
  const auto cpu = std::clock();
  start = Clock::now();
  for (int64_t i = 0; i < FLAGS_iter; ++i) times.push_back(run().first);
  const double wall_us = microseconds(start), cpu_us = 1e6 * static_cast<double>(std::clock() - cpu) / CLOCKS_PER_SEC;
  if (FLAGS_report_pep)
    for (double us : times)
      std::cout << R"(PyTorchObserver {"type": "NET", "unit": "us", "metric": "latency", "value": ")"
                << static_cast<int64_t>(us) << "\"}\n";
  const double mean_us = wall_us / FLAGS_iter;
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
    FLAGS_pthreadpool_size = 1;  // unless a flag says otherwise
    if (!c10::ParseCommandLineFlags(&argc, &argv)) return 1;  // it has said why
    benchmark();
    return 0;
  } catch (const c10::Error& error) {
    std::cerr << "lite_benchmark: " << first_line(error) << std::endl;
  } catch (const std::exception& error) {
    std::cerr << "lite_benchmark: " << error.what() << std::endl;
  }
  return 1;
}
