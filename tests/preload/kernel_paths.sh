# Everything outside the mount is as without the preload.
work() { mkdir $1 && cd $1 && "${@:2}" sh -c 'seq 5 > a; cp -p a b; ln a c; ln -s a d; mv b e; chmod 600 e; touch -d @100 e; mkfifo p; stat -c "%n %a %s %h %F" *; stat -c %Y e; cat < a | tail -n 1; readlink d; rm a; ls; df . | wc -l; cat none; echo $?'; cd ..; }
work native env > native.out 2> native.err
work hooked il > hooked.out 2> hooked.err
diff native.out hooked.out && diff native.err hooked.err && echo equal
il stat -c %i /etc/passwd | diff - <(stat -c %i /etc/passwd) && echo inode
il sh -c 'cat /proc/self/cmdline | tr "\0" " "; echo; cat /proc/self/comm; ls -d /proc/self/cwd; tty; true'
il sh -c 'ulimit -n 20; cat /etc/hostname > /dev/null && echo few'
