// A benchmarker for .ptl files: loads one with libtorch's mobile loader, runs it many times, says how long it takes.
//
//   .ptl --load--> module --get_all_bundled_inputs, or ones--> inputs --forward, warmup + iter times--> microseconds
//
// Flags and output are those of PyTorch's speed_benchmark_torch, so that what is learned here holds on a phone, and one
// parser reads both. The last line is our own: every iteration (a mean alone hides the spread), loading, the first run,
// the peak of memory, and CPU time over wall time ("cores": below 1 on one thread, others had the core for the rest).
//
// Compiled on demand by minst.mobile.lite.compile_benchmark. Lesson: notebooks/08_on_device_latency.ipynb

#include <ATen/Parallel.h>
#include <ATen/ops/ones.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Flags.h>
#include <sys/resource.h>
#include <torch/csrc/jit/mobile/import.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

C10_DECLARE_int(pthreadpool_size);  // libtorch's own: read once, when its pool of threads (XNNPACK's) is made

using Clock = std::chrono::steady_clock;
using Inputs = std::vector<c10::IValue>;

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
std::map<std::string, std::string> flags = {
    {"model", ""},  {"input_dims", ""}, {"input_type", ""},     {"use_bundled_input", "-1"}, {"warmup", "0"},
    {"iter", "10"}, {"help", "false"},  {"report_pep", "false"}, {"print_output", "false"},  {"pthreadpool_size", "0"}};

bool is_bool(const std::string& value) { return value == "true" || value == "false"; }

// --flag=value or --flag value; of a flag that is true or false the value may be left out
void parse_flags(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const size_t equals = word.find('=');
    const std::string name = word.substr(0, 2) == "--" ? word.substr(2, equals - 2) : "";  // npos - 2: to the end
    const auto flag = flags.find(name);
    if (flag == flags.end()) fail("unknown flag " + word + "; --help lists them");
    const bool boolean = is_bool(flag->second);
    const bool more = i + 1 < argc && (!boolean || is_bool(argv[i + 1]));
    if (equals == std::string::npos && !boolean && !more) fail("--" + name + " needs a value");
    flag->second = equals != std::string::npos ? word.substr(equals + 1) : more ? argv[++i] : "true";
    if (boolean && !is_bool(flag->second)) fail("--" + name + " is " + flag->second + "; it must be true or false");
  }
}

bool on(const std::string& name) { return flags[name] == "true"; }

int64_t whole(const std::string& text, const std::string& flag, int64_t least) {
  char* end = nullptr;
  const long long value = std::strtoll(text.c_str(), &end, 10);
  if (text.empty() || *end || value < least || value > INT32_MAX)
    fail("--" + flag + ": '" + text + "' must be a whole number of at least " + std::to_string(least));
  return value;
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> pieces(1);
  for (char c : text)
    if (c == separator) pieces.emplace_back();
    else pieces.back() += c;
  return pieces;
}

// --input_dims "1,3,192,256;1,20,128" --input_type "float;float": ones of these shapes
Inputs ones() {
  if (flags["input_dims"].empty()) fail("no inputs: give --use_bundled_input 0, or --input_dims and --input_type");
  const std::map<std::string, at::ScalarType> types = {
      {"float", at::kFloat}, {"uint8_t", at::kByte}, {"int64", at::kLong}};
  const auto dims = split(flags["input_dims"], ';'), names = split(flags["input_type"], ';');
  if (dims.size() != names.size())
    fail("--input_dims has " + std::to_string(dims.size()) + " input(s), --input_type " + std::to_string(names.size()));
  Inputs inputs;
  for (size_t i = 0; i < dims.size(); ++i) {
    std::vector<int64_t> shape;
    for (const auto& size : split(dims[i], ',')) shape.push_back(whole(size, "input_dims", 1));
    const auto type = types.find(names[i]);
    if (type == types.end()) fail("--input_type: '" + names[i] + "' must be float, uint8_t or int64");
    inputs.emplace_back(at::ones(shape, type->second));
  }
  return inputs;
}

Inputs bundled(torch::jit::mobile::Module& module, int64_t index) {
  const auto method = module.find_method("get_all_bundled_inputs");
  if (!method) fail("the model has no bundled inputs; export it with them, or give --input_dims and --input_type");
  const auto all = (*method)({}).toList();
  if (index >= static_cast<int64_t>(all.size()))
    fail("--use_bundled_input " + std::to_string(index) + ": the model has " + std::to_string(all.size()) + ", from 0");
  return all.get(index).toTupleRef().elements().vec();
}

torch::jit::mobile::Module load(const std::string& path) {
  if (path.empty()) fail("--model is missing; --help lists the flags");
  if (!std::ifstream(path).good()) fail("--model: cannot read " + path);
  try {
    return torch::jit::_load_for_mobile(path);
  } catch (const c10::Error& error) {
    fail("--model is no model of the lite interpreter: " + first_line(error));
  }
}

// a wrong number of inputs would end libtorch with a segmentation fault
void check_count(torch::jit::mobile::Module& module, size_t given) {
  const auto forward = module.get_method("forward");
  if (!forward.function().hasSchema()) return;
  const size_t wanted = forward.function().getSchema().arguments().size() - 1;  // without self
  if (given != wanted)
    fail("the model takes " + std::to_string(wanted) + " input(s), it was given " + std::to_string(given));
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
  const int64_t warmup = whole(flags["warmup"], "warmup", 0), iterations = whole(flags["iter"], "iter", 1);
  const int64_t threads = whole(flags["pthreadpool_size"], "pthreadpool_size", 0);
  const int64_t index = whole(flags["use_bundled_input"], "use_bundled_input", -1);
  if (threads > 0) {  // both pools, XNNPACK's and OpenMP's: one thread must be one core
    FLAGS_pthreadpool_size = static_cast<int>(threads);
    at::set_num_threads(static_cast<int>(threads));
  }
  const c10::InferenceMode no_gradients;
  auto start = Clock::now();
  auto module = load(flags["model"]);
  const double load_us = microseconds(start);
  const Inputs inputs = index < 0 ? ones() : bundled(module, index);
  check_count(module, inputs.size());

  double first_us = -1;  // the very first run packs weights and finds its memory, whichever run that is
  const auto run = [&] {
    const auto begin = Clock::now();
    const auto output = module.forward(inputs);
    const double us = microseconds(begin);
    if (first_us < 0) first_us = us;
    return std::make_pair(us, output);
  };
  if (on("print_output")) std::cout << run().second << std::endl;
  std::cout << "Starting benchmark.\nRunning warmup runs." << std::endl;
  for (int64_t i = 0; i < warmup; ++i) run();
  std::cout << "Main runs." << std::endl;
  std::vector<double> times;
  const auto cpu = std::clock();
  start = Clock::now();
  for (int64_t i = 0; i < iterations; ++i) times.push_back(run().first);
  const double wall_us = microseconds(start), cpu_us = 1e6 * static_cast<double>(std::clock() - cpu) / CLOCKS_PER_SEC;
  if (on("report_pep"))
    for (double us : times)
      std::cout << R"(PyTorchObserver {"type": "NET", "unit": "us", "metric": "latency", "value": ")"
                << static_cast<int64_t>(us) << "\"}\n";
  const double mean_us = wall_us / static_cast<double>(iterations);
  std::cout << "Main run finished. Microseconds per iter: " << mean_us << ". Iters per second: " << 1e6 / mean_us
            << std::endl;

  std::ostringstream json;
  json << std::fixed << std::setprecision(3);
  json << R"(minst: {"load_us": )" << load_us << R"(, "first_run_us": )" << first_us;
  json << R"(, "peak_bytes": )" << peak_bytes() << R"(, "cores": )" << cpu_us / wall_us << R"(, "iterations_us": [)";
  for (size_t i = 0; i < times.size(); ++i) json << (i ? ", " : "") << times[i];
  std::cout << json.str() << "]}" << std::endl;
}

int main(int argc, char** argv) {
  try {
    parse_flags(argc, argv);
    if (!on("help")) return benchmark(), 0;
    std::cout << "usage: lite_benchmark --model=FILE.ptl --use_bundled_input=0 --warmup=5 --iter=20\nflags:";
    for (const auto& flag : flags) std::cout << " --" << flag.first;
    std::cout << std::endl;
    return 0;
  } catch (const c10::Error& error) {
    std::cerr << "lite_benchmark: " << first_line(error) << std::endl;
  } catch (const std::exception& error) {
    std::cerr << "lite_benchmark: " << error.what() << std::endl;
  }
  return 1;
}
