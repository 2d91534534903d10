# Read by llama-cpp-python's own CMakeLists.txt (CMAKE_PROJECT_llama_cpp_INCLUDE). It forces the cache entry on; a normal
# variable goes before it (policy CMP0126). llama.cpp's common library, a third of the compile, is of no use to Python.
set(LLAMA_BUILD_COMMON OFF)
