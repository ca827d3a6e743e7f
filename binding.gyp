{
  "targets": [
    {
      "target_name": "qcow2_backup",
      "sources": ["<!@(find native -name '*.cc' | sort)"],
      "include_dirs": ["native"],
      "dependencies": ["<!(node -p \"require('node-addon-api').targets\"):node_addon_api_except"],
      "defines": [
        "NAPI_VERSION=9",
        "NODE_ADDON_API_REQUIRE_BASIC_FINALIZERS",
        "NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS",
        "NODE_API_NO_EXTERNAL_BUFFERS_ALLOWED",
        "_GNU_SOURCE",
        "_GLIBCXX_ASSERTIONS"
      ],
      "cflags": [
        "-fvisibility=hidden", "-O2", "-g1",
        "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=3",
        "-fstack-protector-strong", "-fstack-clash-protection"
      ],
      "cflags_cc": ["-std=c++20", "-Wall", "-Wextra", "-Wno-missing-field-initializers", "-Wno-restrict", "-Werror=return-type", "-fvisibility-inlines-hidden"],
      "cflags_cc!": ["-fno-rtti"],
      "ldflags": ["-Wl,-Bsymbolic", "-Wl,--exclude-libs,ALL", "-Wl,-z,nodelete", "-Wl,-z,relro", "-Wl,-z,now", "-Wl,-z,noexecstack", "-Wl,--version-script=../native/napi/exports.map"],
      "libraries": ["-l:liburing.a", "-l:libdeflate.a", "-l:libzstd.a", "-l:libz.a", "-l:libb2.a", "-lpthread", "-ldl"]
    }
  ]
}
