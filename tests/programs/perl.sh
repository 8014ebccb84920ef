# perl: files, directories, stat, locks, tied files, in-place edits
set -e
perl -e '
use strict; use warnings; use Fcntl qw(:flock :seek :DEFAULT); use File::Find; use File::Copy; use File::Path qw(make_path remove_tree); use Cwd; use File::Temp qw(tempfile tempdir);
open(my $f, "+>", "f") or die $!; print $f "line $_\n" for 1..100; seek($f, 0, SEEK_SET); my @l = <$f>; print scalar(@l), "\n"; close $f;
open($f, "<", "f"); flock($f, LOCK_SH) or die; print tell($f), " ", -s "f", "\n"; close $f;
make_path("a/b/c"); copy("f", "a/b/c/g") or die; move("a/b/c/g", "a/h") or die; find(sub { print "$File::Find::name\n" }, "a");
opendir(my $d, "a"); print join(",", sort grep { !/^\./ } readdir $d), "\n"; closedir $d;
my ($t, $name) = tempfile(DIR => "."); print $t "temp"; close $t; print -s $name, "\n"; unlink $name; my $td = tempdir(DIR => ".", CLEANUP => 1); print -d $td ? "dir\n" : "no\n";
print cwd() eq getcwd() ? "cwd\n" : "differs\n"; chdir "a"; print -e "h" ? "h\n" : "none\n"; chdir "..";
utime(1000, 2000, "f"); my @s = stat("f"); print "$s[8] $s[9] $s[7]\n"; chmod 0600, "f"; printf "%o\n", (stat "f")[2] & 07777;
sysopen(my $x, "excl", O_CREAT|O_EXCL|O_RDWR) or die; print sysopen(my $y, "excl", O_CREAT|O_EXCL|O_RDWR) ? "again\n" : "exists\n"; syswrite $x, "abc"; sysseek $x, 1, 0; sysread $x, my $buf, 5; print "$buf\n";
print `cat f | wc -l`; my $pid = fork; if (!$pid) { print $x "child"; exit } waitpid $pid, 0; print -s "excl", "\n"; symlink "f", "l"; print readlink("l"), "\n"; rename "f", "g"; print join(",", grep { length() < 6 } glob("*")), "\n"; remove_tree("a"); print -e "a" ? "still\n" : "gone\n"; truncate "g", 10; print -s "g", "\n";
'
perl -MDB_File -e 1 2>/dev/null; perl -i.orig -ne 'print if $. > 1' g; ls
