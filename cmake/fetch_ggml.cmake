# fetch_ggml.cmake - find ggml's sources and set EL_GGML_DIR (holds include/ggml.h and src/ggml.c).
# In this order: -DEDGELLM_GGML_SOURCE=DIR; the archive in third_party/ (a source distribution carries it); the user's
# cache; the package index, through pip, so that mirrors and proxies configured for pip just work.
# Only the first one is taken as it is. An archive from anywhere else has to have the sha256 of cmake/ggml.txt.

function(el_read_pin out_file out_hash)
  file(STRINGS "${PROJECT_SOURCE_DIR}/cmake/ggml.txt" lines)
  if(NOT CMAKE_SCRIPT_MODE_FILE)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/cmake/ggml.txt")
  endif()
  string(REGEX MATCH "libggml-python==([0-9a-z.]+)" _ "${lines}")
  set(version "${CMAKE_MATCH_1}")
  string(REGEX MATCH "--hash=sha256:([0-9a-f]+)" _ "${lines}")
  set(${out_hash} "${CMAKE_MATCH_1}" PARENT_SCOPE)
  set(${out_file} "libggml_python-${version}.tar.gz" PARENT_SCOPE)
endfunction()

function(el_cache_dir out)
  if(DEFINED ENV{EDGELLM_CACHE})
    set(dir "$ENV{EDGELLM_CACHE}")
  elseif(DEFINED ENV{XDG_CACHE_HOME})
    set(dir "$ENV{XDG_CACHE_HOME}/edgellm")
  elseif(WIN32 AND DEFINED ENV{LOCALAPPDATA})
    set(dir "$ENV{LOCALAPPDATA}/edgellm")
  elseif(DEFINED ENV{HOME})
    set(dir "$ENV{HOME}/.cache/edgellm")
  else()
    set(dir "${PROJECT_BINARY_DIR}/cache")
  endif()
  file(TO_CMAKE_PATH "${dir}" dir)
  set(${out} "${dir}" PARENT_SCOPE)
endfunction()

# pip's own words, the last lines of them, for an error message.
function(el_tail out text)
  string(STRIP "${text}" text)
  string(REGEX REPLACE ";" "," text "${text}")
  string(REPLACE "\n" ";" lines "${text}")
  list(FILTER lines EXCLUDE REGEX "notice|^WARNING: Location")
  list(LENGTH lines n)
  if(n GREATER 6)
    math(EXPR from "${n} - 6")
    list(SUBLIST lines ${from} 6 lines)
  endif()
  list(JOIN lines "\n    " text)
  set(${out} "    ${text}" PARENT_SCOPE)
endfunction()

# Downloads into ${dir}; stops with the next command to run when that is impossible.
# pip asks a source distribution for its metadata even when only told to download it, which needs the two packages that
# built it. Where they are installed (pyproject.toml asks for them) that takes 5 s; otherwise pip installs them into a
# throw-away environment first.
function(el_pip_download dir file)
  set(other_ways
      "or download ${file} yourself (cmake/ggml.txt has its hash) into ${PROJECT_SOURCE_DIR}/third_party/,\n"
      "or pass -DEDGELLM_GGML_SOURCE=DIR with ggml's own sources (DIR/include/ggml.h)")
  list(JOIN other_ways "  " other_ways)
  if("$ENV{EDGELLM_OFFLINE}")
    message(FATAL_ERROR "ggml's sources are not here and EDGELLM_OFFLINE forbids fetching them. Run\n"
                        "  env -u EDGELLM_OFFLINE ${EL_CONFIGURE_COMMAND}\n  ${other_ways}")
  endif()
  execute_process(COMMAND ${Python_EXECUTABLE} -m pip --version RESULT_VARIABLE failed OUTPUT_QUIET ERROR_QUIET)
  if(failed)
    message(FATAL_ERROR "pip fetches ggml's sources, and ${Python_EXECUTABLE} has none. Run\n"
                        "  ${Python_EXECUTABLE} -m ensurepip\n"
                        "(on Debian and Ubuntu: apt-get install python3-pip), then configure again,\n  ${other_ways}")
  endif()
  execute_process(COMMAND ${Python_EXECUTABLE} -c "import scikit_build_core, setuptools_scm"
                  RESULT_VARIABLE failed OUTPUT_QUIET ERROR_QUIET)
  set(ways "isolated")
  if(NOT failed)
    set(ways "--no-build-isolation" "isolated")
  endif()
  message(STATUS "edgellm: fetching ggml (${file}, 7 MB) from the package index")
  foreach(way IN LISTS ways)
    string(REPLACE "isolated" "" option "${way}")
    if(way STREQUAL "--no-build-isolation")
      set(option ${way})
    endif()
    execute_process(
      COMMAND ${Python_EXECUTABLE} -m pip download --quiet --disable-pip-version-check --no-deps
              --no-binary libggml-python ${option} --require-hashes
              --requirement "${PROJECT_SOURCE_DIR}/cmake/ggml.txt" --dest "${dir}"
      RESULT_VARIABLE failed OUTPUT_VARIABLE said ERROR_VARIABLE said)
    if(NOT failed AND EXISTS "${dir}/${file}")
      return()
    endif()
  endforeach()
  el_tail(said "${said}")
  if(said MATCHES "DO NOT MATCH THE HASHES")
    message(FATAL_ERROR "The package index sent a ${file} that is not the one edgellm was written against:\n${said}\n"
                        "A mirror or proxy may have changed it. Run\n"
                        "  ${Python_EXECUTABLE} -m pip cache remove libggml_python\n"
                        "and configure again, or use another index (pip --index-url, PIP_INDEX_URL),\n  ${other_ways}")
  endif()
  message(FATAL_ERROR "pip could not fetch ggml's sources:\n${said}\nCheck that the package index can be reached with\n"
                      "  ${Python_EXECUTABLE} -m pip download --no-deps libggml-python==0.20.2.post1\n"
                      "and configure again,\n  ${other_ways}")
endfunction()

function(el_check_hash path hash)
  file(SHA256 "${path}" found)
  if(NOT found STREQUAL hash)
    message(FATAL_ERROR "${path} is not the archive named in cmake/ggml.txt:\n  sha256 ${found}\n  wanted ${hash}\n"
                        "Run\n  ${CMAKE_COMMAND} -E rm ${path}\nand configure again.")
  endif()
endfunction()

# The pinned archive, checked, wherever it was or can be got from.
function(el_ggml_archive out)
  el_read_pin(file hash)
  el_cache_dir(cache)
  set(archive "${PROJECT_SOURCE_DIR}/third_party/${file}")
  if(NOT EXISTS "${archive}")
    set(archive "${cache}/ggml/${hash}/${file}")
  endif()
  if(NOT EXISTS "${archive}")
    # Downloaded elsewhere, copied beside its place, renamed: a broken download is never found there.
    string(RANDOM LENGTH 8 suffix)
    set(part "${PROJECT_BINARY_DIR}/download-${suffix}")
    file(MAKE_DIRECTORY "${part}")
    el_pip_download("${part}" "${file}")
    el_check_hash("${part}/${file}" ${hash})
    execute_process(COMMAND ${CMAKE_COMMAND} -E make_directory "${cache}/ggml/${hash}"
                    RESULT_VARIABLE failed OUTPUT_QUIET ERROR_QUIET)
    if(NOT failed)
      execute_process(COMMAND ${CMAKE_COMMAND} -E copy "${part}/${file}" "${archive}.${suffix}"
                      RESULT_VARIABLE failed OUTPUT_QUIET ERROR_QUIET)
    endif()
    if(failed) # a cache is a convenience: without a writable one, use the file where it is
      set(archive "${part}/${file}")
    else()
      file(RENAME "${archive}.${suffix}" "${archive}")
      file(REMOVE_RECURSE "${part}")
    endif()
  endif()
  el_check_hash("${archive}" ${hash})
  set(${out} "${archive}" PARENT_SCOPE)
endfunction()

function(el_fetch_ggml)
  if(EDGELLM_GGML_SOURCE)
    get_filename_component(dir "${EDGELLM_GGML_SOURCE}" ABSOLUTE BASE_DIR "${CMAKE_SOURCE_DIR}")
    if(NOT EXISTS "${dir}/include/ggml.h" OR NOT EXISTS "${dir}/src/ggml.c")
      message(FATAL_ERROR "EDGELLM_GGML_SOURCE=${EDGELLM_GGML_SOURCE} holds no include/ggml.h and src/ggml.c. Name the folder that "
                          "does (in a llama.cpp checkout that is ggml/), or leave the option away and ggml is fetched:\n"
                          "  ${CMAKE_COMMAND} -S ${CMAKE_SOURCE_DIR} -B ${CMAKE_BINARY_DIR} -U EDGELLM_GGML_SOURCE")
    endif()
    set(EL_GGML_DIR "${dir}" PARENT_SCOPE)
    set(EL_GGML_ORIGIN "${dir}" PARENT_SCOPE)
    return()
  endif()

  el_read_pin(file hash)
  set(dir "${PROJECT_BINARY_DIR}/ggml-${hash}")
  if(NOT EXISTS "${dir}/.complete")
    el_ggml_archive(archive)
    file(REMOVE_RECURSE "${dir}")
    file(ARCHIVE_EXTRACT INPUT "${archive}" DESTINATION "${dir}" PATTERNS
         "*/ggml/include/*" "*/ggml/src/*.c" "*/ggml/src/*.cpp" "*/ggml/src/*.h" "*/ggml/LICENSE" "*/ggml/CMakeLists.txt")
    file(TOUCH "${dir}/.complete")
  endif()
  string(REPLACE ".tar.gz" "" folder "${file}")
  if(NOT EXISTS "${dir}/${folder}/ggml/src/ggml.c")
    message(FATAL_ERROR "${file} holds no ggml/src/ggml.c. Run\n  ${CMAKE_COMMAND} -E rm -r ${dir}\nand configure again.")
  endif()
  set(EL_GGML_DIR "${dir}/${folder}/ggml" PARENT_SCOPE)
  set(EL_GGML_ORIGIN "${file}" PARENT_SCOPE)
endfunction()
