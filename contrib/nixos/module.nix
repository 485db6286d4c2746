# services.deltapush: deltapush as a service, by the unit of contrib/systemd.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.deltapush;
  format = pkgs.formats.yaml { };
  # The service may write here only.
  own = {
    certificate.directory = "/var/lib/deltapush/certs";
    storage.directory = "/var/lib/deltapush/state";
  };
  file = format.generate "deltapush.yaml" (lib.recursiveUpdate cfg.settings own);
in
{
  options.services.deltapush = {
    enable = lib.mkEnableOption "deltapush, push notifications for Delta Chat on any IMAP server";
    package = lib.mkOption {
      type = lib.types.package;
      default = pkgs.callPackage ./package.nix { };
      defaultText = lib.literalExpression "pkgs.callPackage ./package.nix { }";
      description = "The package of deltapush.";
    };
    settings = lib.mkOption {
      inherit (format) type;
      default = { };
      example = {
        hostname = "push.example.org";
        listeners = [
          {
            address = "[::]:993";
            tls = "implicit";
          }
        ];
        certificate.acme.terms_agreed = true;
        routes = [
          {
            domain = "example.org";
            upstream = "imaps://mail.example.org";
          }
        ];
      };
      description = ''
        The configuration, with all keys of docs/configuration.md. It must contain no secret: everybody on the machine can read it.
        The folders of certificates and state are below /var/lib/deltapush.
      '';
    };
    openFirewall = lib.mkEnableOption "the ports of all listeners in the firewall";
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = cfg.settings ? hostname && cfg.settings ? routes;
        message = "services.deltapush.settings needs hostname and routes";
      }
    ];
    environment.systemPackages = [ cfg.package ];
    # For the commands, which take --config /etc/deltapush/config.yaml.
    environment.etc."deltapush/config.yaml".source = file;
    users.users.deltapush = {
      isSystemUser = true;
      group = "deltapush";
      home = "/var/lib/deltapush";
    };
    users.groups.deltapush = { };
    systemd.packages = [ cfg.package ];
    systemd.services.deltapush = {
      wantedBy = [ "multi-user.target" ];
      restartTriggers = [ file ];
    };
    networking.firewall.allowedTCPPorts = lib.mkIf cfg.openFirewall (
      map (listener: lib.toInt (lib.last (lib.splitString ":" listener.address))) (
        cfg.settings.listeners or [ ]
      )
    );
  };
}
