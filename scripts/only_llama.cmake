# Read by llama-cpp-python's own CMakeLists.txt (CMAKE_PROJECT_llama_cpp_INCLUDE). It forces the cache entry on; a normal
# variable goes before it (policy CMP0126). llama.cpp's common library, a third of the compile, is of no use to Python.
set(LLAMA_BUILD_COMMON OFF)

# ggml takes every instruction set of this CPU. Its AMX code ends processes on some that have it: each thread must ask Linux
# for the tile registers, and the tiles' configuration must not be optimised away, as GCC 12 does (llama.cpp #26954, #20824).
include(CheckCXXCompilerFlag)
check_cxx_compiler_flag(-mno-amx-tile KNOWS_AMX)
if(KNOWS_AMX)
  add_compile_options(-mno-amx-tile -mno-amx-int8 -mno-amx-bf16)
endif()
