# cuDNN's headers and its frontend, for the library lomu_cudnn: attention by cuDNN, or the same functions saying that it is
# not there. Headers are all it takes; the library itself is loaded when a program first asks for it.
set(LOMU_CUDNN_FRONTEND "" CACHE PATH "Folder of cudnn_frontend.h, 1.32 or newer (pip's nvidia-cudnn-frontend has it in include/)")

find_package(Python3 3.8 COMPONENTS Interpreter QUIET)
set(packages "")
if(Python3_FOUND)
  execute_process(COMMAND ${Python3_EXECUTABLE} -c
      "import site, sysconfig; print(';'.join(site.getsitepackages() + [site.getusersitepackages(), sysconfig.get_paths()['data']]))"
    OUTPUT_VARIABLE packages OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
find_path(LOMU_CUDNN_INCLUDE cudnn.h HINTS ${CUDAToolkit_INCLUDE_DIRS} PATHS ${packages} PATH_SUFFIXES nvidia/cudnn/include)
find_path(LOMU_CUDNN_FRONTEND_INCLUDE cudnn_frontend.h
  HINTS ${LOMU_CUDNN_FRONTEND} PATHS ${packages} PATH_SUFFIXES include nvidia_cudnn_frontend/include)
find_library(LOMU_CUDNN_LIBRARY NAMES libcudnn.so.9
  HINTS ${LOMU_CUDNN_INCLUDE}/../lib64 ${LOMU_CUDNN_INCLUDE}/../lib ${CUDAToolkit_LIBRARY_DIR})

set(frontend_version 0)
if(LOMU_CUDNN_FRONTEND_INCLUDE)
  file(STRINGS ${LOMU_CUDNN_FRONTEND_INCLUDE}/cudnn_frontend_version.h lines REGEX "define CUDNN_FRONTEND_(MAJOR|MINOR)_VERSION [0-9]")
  string(REGEX REPLACE "[^0-9;]" "" numbers "${lines}")
  string(REPLACE ";" "." frontend_version "${numbers}")
endif()

set(LOMU_WITH_CUDNN OFF CACHE INTERNAL "Whether this build has attention by cuDNN")
if(NOT LOMU_CUDNN_INCLUDE)
  message(STATUS "cuDNN attention: OFF, there is no cudnn.h")
elseif(frontend_version VERSION_LESS 1.32)
  message(STATUS "cuDNN attention: OFF, no cudnn_frontend.h of 1.32 or newer (-DLOMU_CUDNN_FRONTEND=FOLDER)")
else()
  set(LOMU_WITH_CUDNN ON CACHE INTERNAL "Whether this build has attention by cuDNN")
  message(STATUS "cuDNN attention: ON, frontend ${frontend_version}")
endif()

if(LOMU_WITH_CUDNN)
  get_filename_component(folder "${LOMU_CUDNN_LIBRARY}" DIRECTORY)
  add_library(lomu_cudnn STATIC cudnn_attention.cpp)
  target_include_directories(lomu_cudnn SYSTEM PRIVATE
    ${LOMU_CUDNN_FRONTEND_INCLUDE} ${LOMU_CUDNN_INCLUDE} ${CUDAToolkit_INCLUDE_DIRS})
  target_compile_definitions(lomu_cudnn PRIVATE
    NV_CUDNN_FRONTEND_USE_DYNAMIC_LOADING CUDNN_FRONTEND_SKIP_JSON_LIB LOMU_CUDNN_FOLDER="${folder}")
  # Nothing in it is worth more than half of the time and memory that it takes to compile.
  set_source_files_properties(cudnn_attention.cpp PROPERTIES COMPILE_OPTIONS -O1)
  target_link_libraries(lomu_cudnn PRIVATE ${CMAKE_DL_LIBS})
else()
  add_library(lomu_cudnn STATIC cudnn_absent.cpp)
endif()
target_link_libraries(lomu_cudnn PUBLIC lomu_base)
