# Evaluates the module with the library of nixpkgs, between stand-ins for the options of NixOS that it sets, and returns what a system
# gets of it: nix-instantiate --eval --strict --json --arg lib 'import <nixpkgs/lib>' check.nix
{ lib }:
let
  any = lib.mkOption {
    type = lib.types.anything;
    default = { };
  };
  list = lib.mkOption {
    type = lib.types.listOf lib.types.anything;
    default = [ ];
  };
  nixos.options = {
    assertions = list;
    environment.systemPackages = list;
    environment.etc = any;
    users.users = any;
    users.groups = any;
    systemd.packages = list;
    systemd.services = any;
    networking.firewall.allowedTCPPorts = list;
  };
  # The module takes of packages: a format whose file is its own content, and a package.
  pkgs = {
    formats.yaml = _: {
      type = lib.types.attrsOf lib.types.anything;
      generate = name: value: { inherit name value; };
    };
    callPackage = _: _: {
      type = "derivation";
      name = "deltapush";
      outPath = "/nix/store/deltapush";
    };
  };
  system =
    settings:
    (lib.evalModules {
      modules = [
        nixos
        ./module.nix
        { config._module.args = { inherit pkgs; }; }
        { config.services.deltapush = settings; }
      ];
    }).config;
  example = {
    enable = true;
    openFirewall = true;
    settings = {
      hostname = "push.example.org";
      listeners = [
        {
          address = "[::]:993";
          tls = "implicit";
        }
        {
          address = "0.0.0.0:443";
          tls = "implicit";
        }
      ];
      routes = [
        {
          domain = "example.org";
          upstream = "imaps://mail.example.org";
        }
      ];
    };
  };
  seen = config: {
    configuration = config.environment.etc."deltapush/config.yaml".source.value or null;
    ports = config.networking.firewall.allowedTCPPorts;
    user = config.users.users.deltapush or null;
    service = config.systemd.services.deltapush.wantedBy or null;
    failed = map (one: one.message) (lib.filter (one: !one.assertion) config.assertions);
  };
in
{
  off = seen (system { });
  on = seen (system example);
  empty = seen (system { enable = true; });
}
